"""Do a predicted property and CHGNet agree? `python -m studies.chgnet_agreement DATA PROPERTY EVALUATION`.

For a property that is a heat of formation. CHGNet's energies get reference energies of the elements, and a factor
between both scales, by least squares over training crystals: E/N = a h + sum_e x_e mu_e. What is left of an energy
without the elements' share, over a, is CHGNet's heat. Its rank correlation with the property is printed for crystals of
the test split, whose property is known, and with the predicted property for the samples of each column of an evaluation
that asked for it by `evaluation.wanted`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from atomrl.core.records import Structures
from atomrl.data.packed_crystals import PackedCrystals, load_splits, load_test
from atomrl.data.structure_files import CRYSTALS, as_structures, read_entries_of
from atomrl.force_fields.chgnet import CHGNetForceField
from atomrl.structures.crystals import from_crystals
from atomrl.util.command_parser import CommandParser
from atomrl.util.errors import UserError
from atomrl.workers.local import as_workers
from studies.queue import ending_like_a_queue

Array = NDArray[np.float64]

RESAMPLES, FEWEST = 1000, 3


@dataclass(frozen=True)
class Heats:
    """CHGNet's heats of formation, by a fit.

    Attributes:
        factor: of the property, a.
        elements: reference energy by atomic number, eV, (119,); NaN for an element that the fit did not see.
    """

    factor: float
    elements: Array

    @classmethod
    def fit(cls, shares: Array, energies: Array, known: Array) -> Heats:
        """Out of C crystals: shares of the elements (C, 119), energies per atom (C,), the property (C,)."""
        seen = shares.any(0)
        solved = np.linalg.lstsq(np.column_stack([known, shares[:, seen]]), energies, rcond=None)[0]
        elements = np.full(shares.shape[1], np.nan)
        elements[seen] = solved[1:]
        return cls(float(solved[0]), elements)

    def of(self, shares: Array, energies: Array) -> Array:
        """Of C crystals, in the property's unit, (C,); NaN with an element that the fit did not see."""
        held = np.where(shares > 0, shares * self.elements, 0.0)
        return np.asarray((energies - held.sum(1)) / self.factor, dtype=np.float64)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the correlations. Exit code 2 for a user's mistake."""
    parser = CommandParser(prog="python -m studies.chgnet_agreement", description=__doc__)
    parser.add_argument("data", help="folder with train.csv and test.csv, or prototypes")
    parser.add_argument("property", help="column of the data")
    parser.add_argument("evaluation", type=Path, nargs="?", help="folder of an evaluation")
    parser.add_argument("--fitted", type=int, default=1000, help="training crystals that the references are fitted to")
    parser.add_argument("--at-most", type=float, help="say too which share has a heat of so much or less by CHGNet")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with ending_like_a_queue():
        _compare(options.data, options.property, options.evaluation, options.fitted, options.at_most)


def _compare(data: str, name: str, evaluation: Path | None, fitted: int, at_most: float | None) -> None:
    train, test = load_splits(data).train, load_test(data)
    if test is None or name not in train.properties:
        known = ", ".join(sorted(train.properties)) or "none"
        raise UserError(f"{data} needs test crystals and a property {name!r}; its properties: {known}")
    with CHGNetForceField() as force_field:
        chosen = train.draw(fitted, 0)
        shares, energies = _energies(force_field, _structures(chosen))
        kept = np.isfinite(energies) & np.isfinite(chosen.properties[name])
        heats = Heats.fit(shares[kept], energies[kept], chosen.properties[name][kept])
        print(f"{name}: CHGNet's energies fitted to {kept.sum():,} training crystals")
        heats_of_test = heats.of(*_energies(force_field, _structures(test)))
        _say(f"{len(test):,} test crystals", heats_of_test, test.properties[name], at_most)
        for path in sorted(evaluation.glob("*.extxyz")) if evaluation else []:
            atoms = ase.io.read(path, index=":")
            predicted = np.array([one.info.get(f"predicted_{name}", np.nan) for one in atoms], dtype=np.float64)
            samples = as_structures(path, read_entries_of(path, as_workers(1)), CRYSTALS).structures
            _say(
                f"{len(atoms):,} samples of {path.stem}",
                heats.of(*_energies(force_field, samples)),
                predicted,
                at_most,
            )


def _structures(crystals: PackedCrystals) -> Structures:
    return from_crystals([crystals.crystal(row) for row in range(len(crystals))])


def _energies(force_field: CHGNetForceField, structures: Structures) -> tuple[Array, Array]:
    """Shares of the elements (C, 119) and energy per atom (C,), NaN where there is none."""
    numbers = torch.where(structures.mask.bool(), structures.numbers, 0)
    counts = torch.zeros(len(structures), 119, dtype=torch.float64)
    counts.scatter_add_(1, numbers, structures.mask.double())
    shares = (counts / structures.sizes.clamp(min=1)[:, None]).numpy()
    found = force_field.evaluate(structures)
    energies = np.array([one.energy if one.reason is None else np.nan for one in found], dtype=np.float64)
    return shares, energies / structures.sizes.clamp(min=1).numpy()


def _say(what: str, heats: Array, values: Array, at_most: float | None) -> None:
    """Rank correlation, with a 95 % interval by bootstrap; the median heat by CHGNet and the share that is low."""
    known = np.isfinite(heats) & np.isfinite(values)
    pairs = np.column_stack([heats[known], values[known]])
    found = _correlation(pairs)
    if np.isnan(found):
        print(f"{what}: too few of them have both, {len(pairs)}, or all have the same")
        return
    rng = np.random.Generator(np.random.PCG64(0))
    drawn = [_correlation(pairs[rng.integers(0, len(pairs), len(pairs))]) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    share = "" if at_most is None else f", {100 * float((heats <= at_most).mean()):.1f} % at most {at_most:g}"
    print(
        f"{what}: rank correlation {found:.3f} [{low:.3f}, {high:.3f}] of {len(pairs):,}; by CHGNet median "
        f"{np.nanmedian(heats):.3f}{share}",
        flush=True,
    )


def _correlation(pairs: Array) -> float:
    """Of (C, 2); NaN for fewer than three, or if all of one column are the same."""
    enough = len(pairs) >= FEWEST and all(len(np.unique(column)) > 1 for column in pairs.T)
    return float(spearmanr(pairs).statistic) if enough else np.nan


if __name__ == "__main__":
    main()
