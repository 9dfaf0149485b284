"""Several rewards as one: their channels side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from atomrl.core.protocols import Reward
from atomrl.core.records import Prompts, RewardTable, Structures
from atomrl.measures.measure import first_reasons
from atomrl.util.errors import UserError


class Together:
    """Scores samples by each of several rewards; implements `protocols.Reward`.

    Args:
        rewards: at least one; `close` closes them all.
    """

    def __init__(self, rewards: Sequence[Reward]) -> None:
        self.rewards = tuple(rewards)
        scopes = {reward.scope for reward in self.rewards}
        self.scope = "per_batch" if "per_batch" in scopes else "per_sample"

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        """The columns of all tables; the reason of a sample is the first that one of them has.

        Raises:
            UserError: two rewards give a column of the same name.
        """
        tables = [reward.score(structures, prompts) for reward in self.rewards]
        return RewardTable(
            channels=_joined([table.channels for table in tables], "channel"),
            reasons=first_reasons([table.reasons for table in tables]),
            withheld={name: table.left_out(name) for table in tables for name in table.channels},
            fields=_joined([table.fields for table in tables], "field"),
            diagnostics=_joined([table.diagnostics for table in tables], "diagnostic"),
            seconds={part: seconds for table in tables for part, seconds in table.seconds.items()},
        )

    def close(self) -> None:
        """Close them all."""
        for reward in self.rewards:
            reward.close()


def _joined(columns: Sequence[Mapping[str, Tensor]], kind: str) -> dict[str, Tensor]:
    """All columns in one mapping."""
    found: dict[str, Tensor] = {}
    for part in columns:
        if twice := sorted(found.keys() & part.keys()):
            raise UserError(f"two rewards have a {kind} {', '.join(twice)}: give one of them another name")
        found |= part
    return found
