"""How far generated molecules are from a minimum: what a relaxation by GFN2-xTB changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from atomrl.chemistry.rdkit import RdkitRecord
from atomrl.core.protocols import Result
from atomrl.core.records import Structures
from atomrl.evaluation.definition import Definition
from atomrl.evaluation.molecules import MoleculeScorecard
from atomrl.measures.bootstrap import RESAMPLES, median, proportion

METRICS: Mapping[str, Definition] = {
    "relaxed": Definition("relaxed to a minimum", "%", "samples", "higher"),
    "strain_energy_median": Definition("energy above the minimum, median (failure = inf)", "eV", "samples", "lower"),
    "rmsd_median": Definition("RMSD to the minimum, median (failure = inf)", "Å", "samples", "lower"),
    "same_molecule": Definition("valid, and the same SMILES after", "%", "samples", "higher"),
    "molecule_stability": Definition("molecule stability, after", "%", "samples", "higher"),
    "validity": Definition("validity (RDKit), after", "%", "samples", "higher"),
}
"""In the order of the table."""


def evaluate_relaxed(
    after: MoleculeScorecard,
    before: Structures,
    relaxed: Structures,
    records: tuple[Sequence[RdkitRecord], Sequence[RdkitRecord]],
    results: tuple[Sequence[Result], Sequence[Result]],
    notes: Sequence[str | None],
    how: str,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> MoleculeScorecard:
    """Judge a relaxation of B molecules.

    Args:
        after: the usual verdict on the relaxed ones.
        before: the molecules, as they were generated.
        relaxed: the same atoms where their relaxation ended.
        records: what RDKit says, before and after.
        results: energies in eV, before and after.
        notes: why an end is no minimum; None where it is.
        how: in words.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    energies = [np.array([result.energy for result in part]) for part in results]
    fine = np.array([note is None for note in notes]) & np.isfinite(energies[0]) & np.isfinite(energies[1])
    strain = np.where(fine, energies[0] - energies[1], np.inf)
    distance = np.where(fine, superposed_rmsd(before, relaxed), np.inf)
    same = [one.smiles is not None and one.smiles == other.smiles for one, other in zip(*records, strict=True)]
    stable, valid = after.samples.stable, after.samples.valid
    reasons = Counter(note for note in notes if note is not None)
    return replace(
        after,
        definitions=METRICS,
        conditions={**after.conditions, "geometry": how},
        summary={
            "relaxed": proportion(fine, seed, resamples),
            "strain_energy_median": median(strain, seed, resamples),
            "rmsd_median": median(distance, seed, resamples),
            "same_molecule": proportion(np.array(same) & fine, seed, resamples),
            "molecule_stability": proportion(stable & fine, seed, resamples),
            "validity": proportion(valid & fine, seed, resamples),
        },
        failures={"relaxation": dict(reasons.most_common())},
    )


def superposed_rmsd(one: Structures, other: Structures) -> NDArray[np.float64]:
    """Root of the mean squared distance of atoms after the best rotation and shift (Kabsch 1976), Å, (B,).

    NaN for a molecule with a coordinate that is not finite.

    Args:
        one: B molecules.
        other: the same atoms elsewhere.
    """
    mask = one.mask.cpu()[..., None].double()
    pair = [part.positions.cpu().double() for part in (one, other)]
    finite = torch.stack([positions.isfinite().all(2).all(1) for positions in pair]).all(0)
    centred = []
    for part in pair:
        positions = torch.where(finite[:, None, None], part, 0.0) * mask
        centred.append((positions - positions.sum(1, keepdim=True) / mask.sum(1, keepdim=True)) * mask)
    covariance = centred[0].transpose(1, 2) @ centred[1]
    left, _, right = torch.linalg.svd(covariance)
    reflected = torch.linalg.det(left @ right) < 0
    left[reflected, :, -1] *= -1  # a rotation, not its mirror image
    moved = centred[0] @ (left @ right)
    squares = (moved - centred[1]).square().sum((1, 2)) / mask.sum((1, 2))
    distances: NDArray[np.float64] = torch.where(finite, squares.sqrt(), torch.nan).numpy()
    return distances
