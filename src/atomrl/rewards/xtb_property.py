"""A reward for a property that GFN2-xTB computes: the gap of the orbitals, the dipole moment."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from atomrl.core.normalize import require_number
from atomrl.measures.measure import BatchMetrics
from atomrl.measures.xtb_properties import XTBPropertiesProvider
from atomrl.rewards.components import RewardComponent
from atomrl.rewards.scores import Scores
from atomrl.util.errors import UserError

SIGNS = {"maximise": 1.0, "minimise": -1.0}


class XTBPropertyReward(RewardComponent):
    """A property of each molecule by GFN2-xTB, or how near it is to a target.

    | property | unit | what |
    |---|---|---|
    | `homo_lumo_gap` | eV | lowest empty minus highest occupied orbital; small for a radical |
    | `dipole_moment` | Debye | length of the dipole of the neutral molecule |

    A molecule that GFN2-xTB cannot evaluate has no score, for the reason that the force field gives.

    Args:
        property: which one.
        goal: `maximise`: the property itself; `minimise`: minus it.
        target: wanted instead: the reward is -(property - target)^2.
        scaling: `weight` and the other options of `RewardComponent`.

    Raises:
        UserError: no such property or goal, or not one of goal and target.
    """

    def __init__(self, property: str, goal: str | None = None, target: float | None = None, **scaling: Any) -> None:
        super().__init__(**scaling)
        if property not in XTBPropertiesProvider.names:
            names = " or ".join(XTBPropertiesProvider.names)
            raise UserError(f"property of XTBPropertyReward must be {names}, got {property!r}")
        if (goal is None) == (target is None):
            raise UserError(
                f"XTBPropertyReward needs either goal, {' or '.join(SIGNS)}, or target, a number; got goal={goal!r} "
                f"and target={target!r}"
            )
        if goal is not None and goal not in SIGNS:
            raise UserError(f"goal of XTBPropertyReward must be {' or '.join(SIGNS)}, got {goal!r}")
        if target is not None:
            require_number("target of XTBPropertyReward", target)
        self.property, self.goal, self.target = property, goal, target

    @property
    def name(self) -> str:
        """Of the property."""
        return self.property

    @property
    def metrics(self) -> tuple[str, ...]:
        """The property."""
        return (self.property,)

    def compute(self, gen_structures: list[Any], **kwargs: Any) -> Tensor | Scores:
        """Larger is better, (B,); in the property's unit, or its square where there is a target."""
        metrics_obj: BatchMetrics = kwargs["metrics_obj"]
        found = metrics_obj[self.property]
        if self.target is not None:
            return Scores(-(found.values - self.target).square(), found.reasons)
        return Scores(SIGNS[str(self.goal)] * found.values, found.reasons)
