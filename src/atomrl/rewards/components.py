"""Parts of a crystal reward.

A part of your own is a class with one method:

    class Density(RewardComponent):
        def compute(self, gen_structures, **kwargs):
            return torch.tensor([len(crystal) / crystal.volume for crystal in gen_structures])

`ReinforceReward` normalises what `compute` returns over the batch, weighs and sums. Larger is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atomrl.core.normalize import CLIP_RANGE, require_number
from atomrl.measures.measure import ENERGY, RELAXED, BatchMetrics
from atomrl.rewards.abstention import HULL_ENTRIES, abstain, check_entries
from atomrl.rewards.base import SCALING, RewardComponent, require_compute, snake_case
from atomrl.rewards.mmd import FEWEST, MAX_REFERENCES, leave_one_out, subsample
from atomrl.rewards.predictor import NetworkPredictor, Predictor, unknown_target
from atomrl.rewards.scores import Scores, as_scores
from atomrl.structures.listing import form_of
from atomrl.user_code.arguments import require_arguments
from atomrl.user_code.calling import calling
from atomrl.user_code.given import label_of
from atomrl.user_code.load import FORMS, load_object
from atomrl.util.errors import UserError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = [
    "CompositionDiversityReward",
    "CreativityReward",
    "CustomReward",
    "EnergyReward",
    "Predictor",
    "PredictorReward",
    "RewardComponent",
    "Scores",
    "StructureDiversityReward",
]

TOO_FEW = "too_few_samples"

ASKED, NOT_ASKED = "asked", "not_asked"
"""Target of a `PredictorReward` that each prompt has its own of, and the reason of a sample whose prompt has none."""

KINDS = ("unique", "novel")
"""What `EnergyReward` may ask of a sample: metrics that are 1 or 0."""


class CustomReward(RewardComponent):
    """A reward of the user's.

    Args:
        source: `path/to/file.py:name`, a dotted path, or the thing itself: a class or an object with `compute`, or a
            function f(structures) -> array of B numbers. A subclass of this one with its own `compute` needs none. What
            they get is said by the annotation of their first parameter, see `form`. A class may have the attributes
            `required_metrics`, `failed_value` and `compares` of `RewardComponent`.
        weight: as in `RewardComponent`, which replaces what a class of the user's says.
        normalize_fn: as in `RewardComponent`.
        eps: as in `RewardComponent`.
        clip_range: as in `RewardComponent`.
        options: passed to a class when it is made, or to a function in each call.

    Raises:
        UserError: no such file or name, or it is neither a class with `compute` nor a function.
    """

    def __init__(
        self,
        source: str | Callable[..., Any] | None = None,
        weight: float = 1.0,
        normalize_fn: str | None = None,
        eps: float = 1e-4,
        clip_range: tuple[float, float] = CLIP_RANGE,
        **options: Any,
    ) -> None:
        super().__init__(weight, normalize_fn, eps, clip_range)
        if source is None:
            if type(self).compute is CustomReward.compute:
                raise UserError(f"CustomReward needs source: {FORMS}, a class with compute, or a function")
            source = type(self)
        found = load_object(source) if isinstance(source, str) else source
        if isinstance(found, type) and issubclass(found, CustomReward) and found.compute is CustomReward.compute:
            raise UserError(f"CustomReward cannot be made of {source!r}, which has no compute of its own")
        self._name = snake_case(label_of(found))
        self._code = found
        self._function: Callable[..., Any]
        self._metrics: tuple[str, ...] = self.required_metrics
        label = source if isinstance(source, str) else self._name
        if found is type(self):
            self._function = self.compute
        elif hasattr(found, "compute") and not isinstance(found, type):
            if options:
                raise UserError(f"{self._name} is an object already, and takes no {', '.join(options)}")
            self._function = self._adopted(found)
        elif is_custom(found):
            require_arguments(found, options, label, 0 if isinstance(found, type) else 1, SCALING)
            self._function = self._called(found, options, label)
        else:
            what = f"the class {label_of(found)}" if isinstance(found, type) else repr(source)
            raise UserError(f"{what} is neither a class with compute nor a function f(structures) -> array")
        self._form = form_of(self._function if hasattr(found, "compute") else found)

    def _called(self, found: Callable[..., Any], options: Mapping[str, Any], label: str) -> Callable[..., Any]:
        """What computes the values: a function with its options, or `compute` of an object of a class."""
        if not isinstance(found, type):
            return lambda gen_structures, **_: found(gen_structures, **options)
        with calling(f"{label}({', '.join(options)})", found):
            made: Any = found(**options)
        require_compute(made.compute, f"{label}.compute")
        return self._adopted(made)

    def _adopted(self, made: Any) -> Callable[..., Any]:
        """The `compute` of an object, whose attributes become those of this component."""
        for name in ("required_metrics", "failed_value", "compares"):
            if hasattr(made, name):  # a class of the user's may lack them
                setattr(self, name, getattr(made, name))
        self._metrics = made.metrics if isinstance(made, RewardComponent) else self.required_metrics
        function: Callable[..., Any] = made.compute
        return function

    @property
    def name(self) -> str:
        """Of the user's class or function."""
        return self._name

    @property
    def code(self) -> object:
        """The user's class or function."""
        return self._code

    @property
    def form(self) -> str | None:
        """That of the user's class or function."""
        return self._form

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those of the user's class."""
        return self._metrics

    def compute(self, gen_structures: list[Structure], **kwargs: Any) -> Tensor | Scores:
        """What the user's code says."""
        return as_scores(self._function(gen_structures=gen_structures, **kwargs), self.name)


def is_custom(found: Any) -> bool:
    """Whether a `CustomReward` can be made of something: a class with `compute`, or a function."""
    return hasattr(found, "compute") if isinstance(found, type) else callable(found)


class PredictorReward(RewardComponent):
    """A predicted property, or how near it is to a target.

    Args:
        predictor: predicts it: a folder that `atomrl pretrain predictor` (crystals) or `atomrl pretrain regressor`
            (molecules) wrote, or an object with `predict`.
        target_name: which of the predictor's properties.
        target_value: wanted: the reward is -(prediction - target)^2. `asked`: what each prompt of a conditional model
            asks for; a sample without such a prompt has the reason `not_asked`. None: the prediction itself, larger is
            better.
        clip_min: a prediction is raised to this first.
        clip_max: and lowered to this.
        scaling: `weight` and the other options of `RewardComponent`.

    Raises:
        UserError: a predictor without `predict` or without the property, or a value that is not a number.
    """

    def __init__(
        self,
        predictor: Predictor | str | Path,
        target_name: str,
        target_value: float | str | None = None,
        clip_min: float | None = None,
        clip_max: float | None = None,
        **scaling: Any,
    ) -> None:
        super().__init__(**scaling)
        for name, number in (("target_value", target_value), ("clip_min", clip_min), ("clip_max", clip_max)):
            if number is not None and not (name == "target_value" and number == ASKED):
                require_number(f"{name} of PredictorReward", number)
        if clip_min is not None and clip_max is not None and not clip_min < clip_max:
            raise UserError(f"clip_min must be below clip_max, got {clip_min} and {clip_max}")
        if isinstance(predictor, str | Path):
            predictor = NetworkPredictor.load(predictor, target_name)
        elif isinstance(predictor, type) or not hasattr(predictor, "predict"):
            raise UserError(f"PredictorReward's predictor must be a folder or an object with predict: {predictor!r}")
        self.predictor = predictor
        self.noun = predictor.noun if isinstance(predictor, NetworkPredictor) else None
        self.target_name, self.target_value = target_name, target_value
        self.clip_min, self.clip_max = clip_min, clip_max

    @property
    def name(self) -> str:
        """Of the property."""
        return self.target_name

    @property
    def code(self) -> object:
        """A predictor of the user's."""
        return type(self) if isinstance(self.predictor, NetworkPredictor) else self.predictor

    def compute(self, gen_structures: list[Structure], **kwargs: Any) -> Tensor | Scores:
        """The prediction or -(prediction - target)^2, (B,)."""
        with torch.no_grad():
            predicted = self.predictor.predict(kwargs["batch_gen"])
        if not isinstance(predicted, Mapping):
            raise UserError(
                f"PredictorReward: predict of {type(self.predictor).__name__} gave {type(predicted).__name__}; return "
                f"{{{self.target_name!r}: one number per structure}}"
            )
        if self.target_name not in predicted:
            raise unknown_target(self.target_name, tuple(predicted), "its predictor")
        answer = as_scores(predicted[self.target_name], self.name)
        values = (answer.values if isinstance(answer, Scores) else answer).double()
        if self.clip_min is not None or self.clip_max is not None:
            values = values.clamp(self.clip_min, self.clip_max)
        if self.target_value == ASKED:
            return self._toward_asked(values, answer, kwargs.get("asked", {}))
        if self.target_value is not None:
            values = -(values - float(self.target_value)).square()
        return Scores(values, answer.reasons) if isinstance(answer, Scores) else values

    def _toward_asked(self, values: Tensor, answer: Tensor | Scores, asked: Mapping[str, Tensor]) -> Scores:
        """-(prediction - what the sample's prompt asks for)^2, (B,)."""
        reasons = answer.reasons if isinstance(answer, Scores) else (None,) * len(values)
        if self.target_name not in asked:
            missing = tuple(NOT_ASKED if reason is None else reason for reason in reasons)
            return Scores(torch.full_like(values, torch.nan), missing)
        return Scores(-(values - asked[self.target_name].to(values.device)).square(), reasons)


class CreativityReward(RewardComponent):
    """1 for a unique and novel sample, 0 for one that is neither, otherwise an AMD distance to others of its formula.

    That is the smallest positive AMD distance (Å) to structures of the same reduced formula, in the batch and in the
    reference; 0 if there is none. A sample of unsound geometry is worth 0.

    Args:
        max_distance: a larger distance counts as this. The published form has no bound: the matcher rescales volumes,
            so rock salt with a lattice 1.5 times as long is still known, and its distance of 4.3 Å pays more than a
            new crystal's 1. At 1 nothing known pays more than something new.
        scaling: `weight` and the other options of `RewardComponent`.
    """

    required_metrics = ("unique", "novel", "amd_distance")
    failed_value: float | None = 0.0

    def __init__(self, max_distance: float | None = None, **scaling: Any) -> None:
        super().__init__(**scaling)
        if max_distance is not None and not (isinstance(max_distance, Real) and max_distance > 0):
            raise UserError(f"CreativityReward's max_distance must be positive, got {max_distance!r}")
        self.max_distance = math.inf if max_distance is None else max_distance

    def compute(self, gen_structures: list[Structure], **kwargs: Any) -> Tensor:
        """In [0, 1] but for distances without a bound, (B,)."""
        metrics_obj: BatchMetrics = kwargs["metrics_obj"]
        unique, novel = metrics_obj["unique"].values > 0, metrics_obj["novel"].values > 0
        values = (unique & novel).double()
        partly = unique ^ novel
        if bool(partly.any()):
            distances = metrics_obj["amd_distance"].values
            known = distances.nan_to_num(nan=0.0, posinf=0.0).clamp(max=self.max_distance)
            values = torch.where(partly, known, values)
        return values


class EnergyReward(RewardComponent):
    """Minus the energy above the hull, bounded to [-`floor`, 1] eV/atom; a failed evaluation counts as 1 eV/atom.

    Args:
        only: of `unique` and `novel`, what a sample must be for its energy to count; one that is not counts as 1
            eV/atom. Empty, as published: every sample's counts, so that a compound of low energy is paid for each time
            that it is made.
        floor: how far below the hull, eV/atom, a lower energy is still worth more; all that lies lower counts as this.
            0, as published: nothing below the hull is worth more than the hull. None: everything is, also what the
            force field invents.
        min_entries: of a sample whose elements have fewer known compounds than this nothing is said (NaN, with the
            reason `abstained`): its hull is too bare to be above or below. 0: never.
        relax_steps: steps by which a sample is relaxed, cell and positions, before its energy is taken; 0, as
            published: it is scored as it was sampled.
        scaling: `weight` and the other options of `RewardComponent`.

    Raises:
        UserError: `only` names something else, `floor` is negative, or one of the others no whole number from 0.
    """

    required_metrics = (ENERGY,)
    failed_value: float | None = -1.0

    def __init__(
        self,
        only: Sequence[str] = (),
        floor: float | None = 0.0,
        min_entries: int = 0,
        relax_steps: int = 0,
        **scaling: Any,
    ) -> None:
        super().__init__(**scaling)
        if floor is not None:
            require_number("floor of EnergyReward", floor)
            if floor < 0:
                raise UserError(f"EnergyReward's floor must be 0 eV/atom or more below the hull, got {floor}")
        self.lowest_energy = None if floor is None else -floor
        self.min_entries = check_entries("EnergyReward", min_entries)
        if isinstance(relax_steps, bool) or not isinstance(relax_steps, int) or relax_steps < 0:
            raise UserError(f"EnergyReward's relax_steps={relax_steps!r}: must be a whole number from 0")
        if isinstance(only, str) or not set(only) <= set(KINDS):
            raise UserError(f"EnergyReward's only={only!r}: must be a list of {' and '.join(KINDS)}, or of one of them")
        self.only, self.energies = tuple(only), f"{RELAXED}{relax_steps}" if relax_steps else ENERGY
        self.compares = "unique" in self.only

    @property
    def metrics(self) -> tuple[str, ...]:
        """The energies, and what `only` and `min_entries` ask for."""
        return (self.energies, *self.only, *((HULL_ENTRIES,) if self.min_entries else ()))

    def compute(self, gen_structures: list[Structure], **kwargs: Any) -> Tensor | Scores:
        """In [-1, floor] eV/atom, (B,); NaN where it abstains."""
        metrics_obj: BatchMetrics = kwargs["metrics_obj"]
        values = -metrics_obj[self.energies].values.nan_to_num(nan=1.0).clamp(self.lowest_energy, 1.0)
        for kind in self.only:
            values = torch.where(metrics_obj[kind].values > 0, values, -1.0)
        return abstain(values, -1.0, metrics_obj, self.min_entries)


class DiversityReward(RewardComponent):
    """How much nearer a sample brings the batch to the reference; see `rewards.mmd`.

    Args:
        max_references: more reference rows than this are subsampled,
        seed: by this seed.
        scaling: `weight` and the other options of `RewardComponent`.

    Raises:
        UserError: one of them is not such a number.
    """

    def __init__(self, max_references: int = MAX_REFERENCES, seed: int = 0, **scaling: Any) -> None:
        super().__init__(**scaling)
        for name, number, low in (("max_references", max_references, 1), ("seed", seed, 0)):
            if isinstance(number, bool) or not isinstance(number, int) or number < low:
                raise UserError(f"{name} of {type(self).__name__} must be a whole number from {low}, got {number!r}")
        self.max_references, self.seed = max_references, seed

    def compute(self, gen_structures: list[Structure], **kwargs: Any) -> Scores:
        """MMD^2 without the sample minus MMD^2 with it, (B,); NaN for all if fewer than three have features."""
        metrics_obj: BatchMetrics = kwargs["metrics_obj"]
        features = metrics_obj[self.required_metrics[0]]
        if features.reference is None or not len(features.reference):
            raise UserError(f"{type(self).__name__} compares with a reference set, and its provider has none")
        known = features.values.isfinite().all(1)
        reference = subsample(features.reference, self.max_references, self.seed)
        values = torch.full((len(known),), torch.nan, dtype=torch.float64)
        values[known] = leave_one_out(features.values[known], reference)
        few = int(known.sum()) < FEWEST
        reasons = tuple(TOO_FEW if few and reason is None else reason for reason in features.reasons)
        return Scores(values, reasons)


class StructureDiversityReward(DiversityReward):
    """Diversity of the geometry."""

    required_metrics = ("structure_features",)


class CompositionDiversityReward(DiversityReward):
    """Diversity of the composition."""

    required_metrics = ("composition_features",)
