"""What is known about each of B crystals that are to be judged; `evaluation.crystals` sums it up.

Nothing is repaired and nothing left out: a cell that is not sound (`check_cells`) reaches no matcher, force field or
encoder, and counts as neither unique nor novel, with an infinite energy above the hull.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from atomrl.core.records import Structures
from atomrl.matching.matcher import reduced_formula
from atomrl.measures.crystal_validity import OXIDATION_STATES, composition_valid
from atomrl.measures.measure import (
    BatchMetrics,
    Metric,
    MetricProvider,
    component_metric,
    first_reasons,
    sound_samples,
    spread,
)
from atomrl.structures.cells import Crystal
from atomrl.structures.crystals import CellBounds, check_cells, compositions, readable_formula, to_pymatgen
from atomrl.structures.molecules import split
from atomrl.util.errors import UserError

STABLE, METASTABLE = 0.0, 0.1
"""eV/atom above the hull."""
TOLERANCE = 1e-5
"""eV/atom, added to both: energies are float32, so a known stable phase comes out at +-1e-6."""

MATCHING = ("unique", "novel")
PHYSICS = ("e_above_hull", "energy_per_atom", "hull_holds_compound")
FEATURES = ("structure_features", "composition_features")

MIN_VOLUME = 0.1
"""Å³ of the cell."""
FIELD_BOUNDS = CellBounds(
    min_length=0.5,
    max_length=1e3,
    min_angle=0.1,
    max_angle=179.9,
    min_volume=0.0,
    max_volume=np.inf,
    min_distance=0.5,
    min_covalent_ratio=0.0,
    max_gap=np.inf,
)
"""The field's structural validity: no distance below 0.5 Å. Beyond 1,000 Å or flatter than 0.1 degrees nothing is
measured."""

Row = Mapping[str, str | float | bool]


@dataclass(frozen=True)
class CrystalVerdicts:
    """Per-sample results, B samples.

    Attributes:
        formulas: reduced, for people.
        sizes: atoms, (B,) int64.
        elements: {atomic number: atoms} of all samples; a number that is no element stays as it is.
        structure_valid: no distance below 0.5 Å and a volume of 0.1 Å³ or more, (B,) bool.
        composition_valid: by SMACT, (B,) bool.
        composition_valid_mixed_valence: the same if atoms of one element may differ in their states, (B,) bool. None if
            not requested.
        unique: the first of its group of matching samples, (B,) bool.
        novel: matches no reference, (B,) bool.
        e_above_hull: eV/atom, (B,); +inf if unknown. None if not requested.
        energies_per_atom: eV, (B,); NaN if unknown. None if not requested.
        hull_holds_compound: whether the hull of its elements holds a compound, (B,) bool. None if not requested.
        features: {name: (B, F)} with the reference's; NaN where unknown.
        reasons: {`geometry`, `matching`, `e_above_hull`, a name of `features`, `reward_components`, `relaxation`: why
            there is no answer (no minimum), one entry per sample, None where there is}. A sample that failed `geometry`
            is listed there alone.
        oxidation_states: the set behind `composition_valid`.
        components: {reward component: its raw values, (B,); NaN where it has none}, of components that pay for nothing
            among the rest.
        predicted: {property: what a predictor says, (B,); NaN where it cannot}, of properties that are wanted.
    """

    formulas: tuple[str, ...]
    sizes: NDArray[np.int64]
    elements: Mapping[int, int]
    structure_valid: NDArray[np.bool_]
    composition_valid: NDArray[np.bool_]
    unique: NDArray[np.bool_]
    novel: NDArray[np.bool_]
    e_above_hull: NDArray[np.float64] | None
    energies_per_atom: NDArray[np.float64] | None
    hull_holds_compound: NDArray[np.bool_] | None
    features: Mapping[str, Metric]
    reasons: Mapping[str, tuple[str | None, ...]]
    oxidation_states: str = OXIDATION_STATES
    components: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    composition_valid_mixed_valence: NDArray[np.bool_] | None = None
    predicted: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def flags(self) -> dict[str, NDArray[np.bool_]]:
        """Every yes or no by name, (B,) each; what needs energies is omitted if not requested.

        `sun` and `msun` (stable or metastable, unique and novel) count where the hull holds a compound; in a system
        that has none any negative formation energy is stable: `sun_no_compound`, `msun_no_compound`.
        """
        flags = {
            "unique": self.unique,
            "novel": self.novel,
            "composition_valid": self.composition_valid,
            "structure_valid": self.structure_valid,
        }
        if self.composition_valid_mixed_valence is not None:
            flags["composition_valid_mixed_valence"] = self.composition_valid_mixed_valence
        if self.e_above_hull is None or self.hull_holds_compound is None:
            return flags
        fresh, compound = self.unique & self.novel, self.hull_holds_compound
        flags["stable"] = self.e_above_hull <= STABLE + TOLERANCE
        flags["metastable"] = self.e_above_hull <= METASTABLE + TOLERANCE
        flags["hull_holds_compound"] = compound
        for name, low in (("sun", flags["stable"]), ("msun", flags["metastable"])):
            flags[name] = low & fresh & compound
            flags[f"{name}_no_compound"] = low & fresh & ~compound
        return flags

    def rows(self) -> list[Row]:
        """Each sample's verdicts as plain values; an unknown number is absent and its reason there."""
        columns: dict[str, Sequence[str | float | bool | None]] = {"formula": self.formulas}
        columns |= {name: values.tolist() for name, values in self.flags.items()}
        known = {"e_above_hull": self.e_above_hull, "energy_per_atom": self.energies_per_atom}
        known |= {component_metric(name): values for name, values in self.components.items()}
        known |= {f"predicted_{name}": values for name, values in self.predicted.items()}
        for name, numbers in known.items():
            if numbers is not None:
                columns[name] = [value if np.isfinite(value) else None for value in numbers.tolist()]
        columns |= {f"{name}_reason": reasons for name, reasons in self.reasons.items()}
        return [
            {name: value for name, value in zip(columns, row, strict=True) if value is not None}
            for row in zip(*columns.values(), strict=True)
        ]


def judge_crystals(
    structures: Structures,
    providers: Iterable[MetricProvider],
    *,
    oxidation_states: str = OXIDATION_STATES,
    mixed_valence: bool = False,
    check: Callable[[Structures], Sequence[str | None]] = check_cells,
) -> CrystalVerdicts:
    """Ask everybody about B crystals.

    Args:
        structures: the samples as they came, without repair.
        providers: of `unique` and `novel`; of all of `PHYSICS` or none; of any of `FEATURES`.
        oxidation_states: see `composition_valid`.
        mixed_valence: whether to ask for the composition with mixed valence as well.
        check: structures -> for each a reason not to look at it, or None.

    Raises:
        UserError: there is no sample, a metric that is needed has no provider, or the set is unknown.
    """
    known = {name: provider for provider in providers for name in provider.names}
    _require_judges(structures, known)
    structures = structures.to(torch.device("cpu"))
    checked = tuple(check(structures))
    rows = torch.tensor([row for row, reason in enumerate(checked) if reason is None], dtype=torch.int64)
    asked = [name for name in (*MATCHING, *PHYSICS, *FEATURES) if name in known]
    metrics = BatchMetrics(sound_samples(structures, rows, to_pymatgen), known)
    measured = {name: spread(metrics[name], rows, len(structures)) for name in asked if len(rows)}
    features = {name: measured[name] for name in FEATURES if name in measured}

    def numbers(name: str) -> NDArray[np.float64]:
        return measured[name].values.numpy() if name in measured else np.full(len(structures), np.nan)

    reasons = {"geometry": checked, "matching": _reasons_of(MATCHING, measured, len(structures))}
    if "e_above_hull" in known:
        reasons["e_above_hull"] = _reasons_of(PHYSICS[:1], measured, len(structures))
    reasons |= {name: metric.reasons for name, metric in features.items()}

    physics, above = "e_above_hull" in known, numbers("e_above_hull")
    found, amounts = structures.numbers[structures.mask.bool()].unique(return_counts=True)
    return CrystalVerdicts(
        formulas=tuple(readable_formula(composition) for composition in compositions(structures)),
        sizes=structures.sizes.numpy(),
        elements=dict(zip(found.tolist(), amounts.tolist(), strict=True)),
        structure_valid=structure_valid(structures),
        composition_valid=compositions_valid(structures, oxidation_states),
        composition_valid_mixed_valence=(
            compositions_valid(structures, oxidation_states, mixed_valence=True) if mixed_valence else None
        ),
        unique=numbers("unique") > 0,
        novel=numbers("novel") > 0,
        e_above_hull=np.where(np.isfinite(above), above, np.inf) if physics else None,
        energies_per_atom=numbers("energy_per_atom") if physics else None,
        hull_holds_compound=numbers("hull_holds_compound") > 0 if physics else None,
        features=features,
        reasons=reasons,
        oxidation_states=oxidation_states,
    )


def _reasons_of(names: Sequence[str], measured: Mapping[str, Metric], samples: int) -> tuple[str | None, ...]:
    """The first reason of each sample, among those of these metrics."""
    nothing: tuple[str | None, ...] = (None,) * samples
    return first_reasons([nothing, *(measured[name].reasons for name in names if name in measured)])


def _require_judges(structures: Structures, known: Mapping[str, MetricProvider]) -> None:
    """Raise UserError for no sample, or a metric without its provider."""
    needed = {*MATCHING, *(PHYSICS if known.keys() & set(PHYSICS) else ())}
    if not len(structures) or needed - known.keys():
        missing = ", ".join(sorted(needed - known.keys())) or "nothing"
        raise UserError(f"cannot judge {len(structures)} crystals with {missing} missing: give samples and providers")


def structure_valid(structures: Structures) -> NDArray[np.bool_]:
    """The field's plain definition (Xie et al. 2022, arXiv:2110.06197), (B,): finite, volume, shortest distance.

    Unlike there, the distance from an atom to its own images counts too.

    Raises:
        UserError: the structures have no cell.
    """
    if structures.cell is None:
        raise UserError("these structures have no cell: structural validity is for crystals")
    valid = np.zeros(len(structures), dtype=np.bool_)
    rows = (torch.linalg.det(structures.cell.detach().double()).abs() >= MIN_VOLUME).nonzero().flatten()
    valid[rows.cpu().numpy()] = [reason is None for reason in check_cells(structures[rows], bounds=FIELD_BOUNDS)]
    return valid


def compositions_valid(
    structures: Structures, oxidation_states: str = OXIDATION_STATES, mixed_valence: bool = False
) -> NDArray[np.bool_]:
    """`composition_valid` of each crystal, whatever its geometry, (B,)."""
    # Of a crystal without geometry: the formula reads nothing but the numbers, and a cell may be singular here.
    bare = [Crystal(numbers, positions, np.eye(3)) for numbers, positions in split(structures)]
    return np.array(
        [composition_valid(reduced_formula(crystal), oxidation_states, mixed_valence) for crystal in bare],
        dtype=np.bool_,
    )
