"""A whole reward of the user's, with channels of its own, in place of components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from atomrl.checkpoints.torch_file import objects_within
from atomrl.core.normalize import require_number
from atomrl.core.protocols import SCOPES, Remembering, Reward
from atomrl.core.records import Prompts, RewardTable, Structures
from atomrl.core.stages import weighted_sum
from atomrl.core.table_check import misshapen, unexplained
from atomrl.rewards.base import TOTAL, RewardComponent
from atomrl.rewards.build import KEY
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.user_code.calling import calling
from atomrl.user_code.given import MARK
from atomrl.user_code.load import load_object
from atomrl.user_code.targets import made, require_methods, target_of
from atomrl.util.errors import UserError


class WholeReward:
    """A reward of the user's as a run asks it; implements `protocols.Reward`.

    The table gets a diagnostic `raw_<channel>` for each channel, which an evaluation shows, and the weighed sum as
    `reward` and `raw_reward`, unless the reward gives these itself. A training lets a sample without a sum count as the
    worst of its iteration in `raw_reward`, see `stages.FailedTotal`.

    Args:
        reward: implements `protocols.Reward`, and has `weights`, {channel: weight in the objective}.
        name: for messages.
        borrowed: somebody else closes it.

    Raises:
        UserError: it lacks one of these, says no weights, or a scope that there is not.
    """

    def __init__(self, reward: Any, name: str, borrowed: bool = False) -> None:
        require_methods(reward, name, ("scope", "score", "close", "weights"), KEY)
        weights = reward.weights
        if not isinstance(weights, Mapping) or not any(weights.values()):
            raise UserError(f"{name}: its weights are {weights!r}; give a weight for each channel, e.g. {{'gap': 1.0}}")
        for channel, weight in weights.items():
            require_number(f"{name}: the weight of {channel}", weight)
        if reward.scope not in SCOPES:
            raise UserError(f"{name}: its scope is {reward.scope!r}; it is one of {', '.join(SCOPES)}")
        if against := [channel for channel, weight in weights.items() if weight < 0]:
            raise UserError(
                f"{name}: the weight of {against[0]} is {weights[against[0]]}, and more of a channel is always "
                "better: let score give its negative, and the weight be positive"
            )
        self.reward: Reward = reward
        self.weights, self.scope, self._name, self._borrowed = dict(weights), reward.scope, name, borrowed
        self._columns: frozenset[str] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of its channels."""
        return tuple(self.weights)

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        """The reward's own table; channels as float64, NaN where a number is not finite.

        Raises:
            UserError: it is none of these samples, lacks a channel, has other columns than the first one had (of a
                reward that scores each sample by itself), or has no score and no reason for a sample.
        """
        with self._asking("score"):
            table = self.reward.score(structures, prompts)
            if wrong := misshapen(table, structures):
                raise UserError(f"{self._name}: {wrong}")
            if missing := sorted(set(self.weights) - set(table.channels)):
                raise UserError(
                    f"{self._name}: it has weights of {', '.join(missing)}, and its table has the channels "
                    f"{', '.join(table.channels)}: let both name the same"
                )
            if self.scope == "per_sample":
                self._require_same_columns(table)
            if wrong := unexplained(table):
                raise UserError(f"{self._name}: {wrong}; return a finite number, or NaN with a reason")
        channels = {name: _finite_or_nan(values) for name, values in table.channels.items()}
        raw = {f"raw_{name}": channels[name].cpu() for name in self.weights}
        total = weighted_sum({name: raw[f"raw_{name}"] for name in self.weights}, self.weights)
        diagnostics = {TOTAL: total, f"raw_{TOTAL}": total, **raw, **table.diagnostics}
        return replace(table, channels=channels, diagnostics=diagnostics)

    def close(self) -> None:
        """Close it, unless it is borrowed."""
        if not self._borrowed:
            with self._asking("close"):
                self.reward.close()

    def _require_same_columns(self, table: RewardTable) -> None:
        """Raise UserError where a table has other columns than the first one: the buckets of a rollout are joined."""
        columns = frozenset({*table.channels, *table.fields, *table.diagnostics})
        self._columns = columns if self._columns is None else self._columns
        if changed := sorted(columns ^ self._columns):
            raise UserError(
                f"{self._name}: {', '.join(changed)} {'is' if len(changed) == 1 else 'are'} in some of its tables and "
                "not in others; give NaN where it is not known"
            )

    def _asking(self, method: str) -> AbstractContextManager[None]:
        """Around a call of the user's code."""
        return calling(f"{self._name}.{method}", type(self.reward))


class RememberingReward(WholeReward):
    """The same of a reward that keeps `protocols.Remembering`."""

    reward: Any

    def remember(self, structures: Structures) -> None:
        """See `Remembering`."""
        with self._asking("remember"):
            self.reward.remember(structures)

    def memory(self) -> dict[str, Any]:
        """See `Remembering`.

        Raises:
            UserError: it is no mapping, or a checkpoint that holds it could not be read.
        """
        with self._asking("memory"):
            found: dict[str, Any] = self.reward.memory()
            if not isinstance(found, dict):
                raise UserError(f"{self._name}: memory gave {type(found).__name__}; return {{name: value}}")
            if objects := objects_within(found):
                raise UserError(
                    f"{self._name}: its memory holds {', '.join(objects)}, and a checkpoint can be read only if it "
                    "holds tensors and plain values: make them such, e.g. by .tolist(), float() or dict()"
                )
        return found

    def recall(self, memory: Mapping[str, Any]) -> None:
        """See `Remembering`."""
        with self._asking("recall"):
            self.reward.recall(memory)


def _finite_or_nan(values: Tensor) -> Tensor:
    """A channel (B,) as float64, with NaN in place of what is not finite."""
    values = values.detach().double()
    return torch.where(values.isfinite(), values, torch.nan)


def whole_reward(entries: Sequence[Any]) -> WholeReward | None:
    """The whole reward that a list of components names; None: they are components.

    Args:
        entries: as of `build_components`; or one alone that names an object, or a class, with `score`.

    Raises:
        UserError: others stand beside it, it cannot be made, or as `WholeReward`.
    """
    for entry in entries:
        if not isinstance(entry, Mapping) or not _is_whole(target_of(entry, KEY)[0]):
            continue
        target, options = target_of(entry, KEY)
        found, name = load_object(target), target.removeprefix(MARK)
        if len(entries) > 1:
            raise UserError(
                f"{KEY}: {name} is a whole reward, with channels of its own, and nothing can stand beside it"
            )
        if isinstance(found, type):
            return _of(made(found, name, options, KEY), name)
        if options:
            raise UserError(f"{KEY}: {name} is an object already, and takes no {', '.join(options)}")
        if isinstance(found, ReinforceReward):
            raise UserError(f"{KEY}: {name} is made of components: give these, reward=[...], with their weights")
        return _of(found, name, borrowed=True)
    return None


def _is_whole(name: str) -> bool:
    """Whether a name is that of a whole reward."""
    if "." not in name and ":" not in name:
        return False  # a built-in one, `xtb`
    found = load_object(name)
    kind = found if isinstance(found, type) else type(found)
    return hasattr(found, "score") and not issubclass(kind, RewardComponent)


def _of(reward: Any, name: str, borrowed: bool = False) -> WholeReward:
    """By what it can do."""
    if hasattr(reward, "remember"):
        require_methods(reward, name, ("remember", "memory", "recall"), KEY)
    kind = RememberingReward if isinstance(reward, Remembering) else WholeReward
    return kind(reward, name, borrowed)
