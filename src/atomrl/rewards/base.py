"""What parts of a reward share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from atomrl.core.normalize import CLIP_RANGE, check_normalization, normalize, require_number
from atomrl.rewards.scores import Scores
from atomrl.structures.listing import form_of
from atomrl.user_code.arguments import require_handed
from atomrl.user_code.calling import located
from atomrl.util.errors import UserError
from atomrl.util.own_frames import definition

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

TOTAL = "reward"
"""Name of the sum of the components."""

SCALING = ("weight", "normalize_fn", "eps", "clip_range")
"""Options of every component."""

HANDED = ("gen_structures", "batch_gen", "device")
"""What `compute` of every component is called with, by keyword; further ones may come."""


class RewardComponent(ABC):
    """One part of a reward.

    Args:
        weight: of this part in the sum.
        normalize_fn: `std`, `norm`, `subtract_mean`, `clip` or None; see `core.normalize`.
        eps: of the normalisation.
        clip_range: of the normalisation `clip`.

    Raises:
        UserError: a value that is not a finite number, or an unknown normalisation.

    Attributes:
        required_metrics: names in `BatchMetrics` that `compute` reads.
        failed_value: what a sample whose geometry is not sound is worth; None: nothing (NaN), and the objective
            decides. Such a sample never reaches `compute`.
        compares: whether a sample's value depends on the samples beside it: then all of an iteration come together.
        noun: of the samples that it can score, `molecules` or `crystals`; None: any.
    """

    required_metrics: ClassVar[tuple[str, ...]] = ()
    failed_value: float | None = None
    compares: bool = False
    noun: str | None = None

    def __init__(
        self,
        weight: float = 1.0,
        normalize_fn: str | None = None,
        eps: float = 1e-4,
        clip_range: tuple[float, float] = CLIP_RANGE,
    ) -> None:
        require_number(f"weight of {type(self).__name__}", weight)
        check_normalization(normalize_fn, eps, clip_range)
        self.weight, self.normalize_fn, self.eps, self.clip_range = weight, normalize_fn, eps, tuple(clip_range)

    @property
    def name(self) -> str:
        """Of its channel and in messages: the class's name in lower case, without `Reward`."""
        return snake_case(type(self).__name__)

    @property
    def code(self) -> object:
        """The class or function that computes it, of which a message shows the line."""
        return type(self)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that `compute` reads."""
        return self.required_metrics

    @property
    def form(self) -> str | None:
        """What it wants for samples, by the annotation of `gen_structures`; see `structures.listing.form_of`."""
        return form_of(self.compute)

    @abstractmethod
    def compute(self, gen_structures: list[Structure], **kwargs: Any) -> Tensor | Scores:
        """Raw values of B samples, (B,).

        Args:
            gen_structures: the samples, all of sound geometry.
            kwargs: `batch_gen`, the same samples as tensors (`Structures`); `metrics_obj`, `BatchMetrics` with what
                `required_metrics` names; `device`; `asked`, what the prompts of a conditional model ask for,
                {property: (B,)} in its unit.
        """

    def scale(self, values: Tensor, weighed: bool = True) -> Tensor:
        """Raw values (B,), normalised over the batch, times the weight if `weighed`; NaN stays NaN."""
        low, high = self.clip_range
        scaled = normalize(values, self.normalize_fn, eps=self.eps, clip_range=(low, high))
        return self.weight * scaled if weighed else scaled

    def __call__(self, gen_structures: list[Structure], **kwargs: Any) -> Tensor:
        """Compute, normalise over the batch, and weigh, (B,)."""
        answer = self.compute(gen_structures=gen_structures, **kwargs)
        return self.scale(answer.values if isinstance(answer, Scores) else answer)


def check_component(component: RewardComponent) -> None:
    """Raise UserError for a component that does not know its weight and normalisation, or cannot be asked.

    Raises:
        UserError: its `__init__` does not call that of `RewardComponent`, or its `compute` takes something else.
    """
    kind = type(component).__name__
    missing = [name for name in SCALING if not hasattr(component, name)]
    if missing:
        error = UserError(
            f"reward component {kind} has no {', '.join(missing)}: its __init__ must call super().__init__(**options)"
        )
        raise located(error, definition(component.code))
    if isinstance(component.metrics, str):
        error = UserError(
            f"reward component {kind}: its required_metrics are the text {component.metrics!r}; give a tuple of names, "
            f"({component.metrics!r},)"
        )
        raise located(error, definition(component.code))
    require_compute(component.compute, f"reward component {kind}: compute")


def require_compute(compute: Callable[..., Any], label: str) -> None:
    """Raise UserError for a `compute` that does not take what each component is called with."""
    require_handed(compute, dict.fromkeys(HANDED), label, "compute(self, gen_structures, **kwargs)")


def snake_case(name: str) -> str:
    """`StructureDiversityReward` -> `structure_diversity`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().removesuffix("_reward")


def unique_names(components: Sequence[RewardComponent]) -> tuple[str, ...]:
    """A channel name for each component; equal ones are numbered from the second on.

    `reward` is the total's name, in `raw_reward`: a component of that name counts as the second.
    """
    names = [TOTAL]
    for component in components:
        count = sum(name == component.name or name.startswith(f"{component.name}_#") for name in names)
        names.append(component.name if not count else f"{component.name}_#{count + 1}")
    return tuple(names[1:])
