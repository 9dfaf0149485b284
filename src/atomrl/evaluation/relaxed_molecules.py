"""How far generated molecules are from a minimum: what a relaxation by GFN2-xTB changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from atomrl.chemistry.rdkit import RdkitRecord
from atomrl.core.protocols import Result
from atomrl.core.records import Structures
from atomrl.evaluation.definition import Definition, Scorecard
from atomrl.evaluation.molecules import MoleculeScorecard
from atomrl.measures.bootstrap import RESAMPLES, median, proportion
from atomrl.measures.measure import first_reasons

METRICS: Mapping[str, Definition] = {
    "relaxed": Definition("relaxed to a minimum", "%", "samples", "higher"),
    "strain_energy_median": Definition("energy above the minimum, median (failure = inf)", "eV", "samples", "lower"),
    "rmsd_median": Definition("RMSD to the minimum, median (failure = inf)", "Å", "samples", "lower"),
    "same_molecule": Definition("valid, and the same SMILES after", "%", "samples", "higher"),
    "molecule_stability": Definition("molecule stability, after", "%", "samples", "higher"),
    "validity": Definition("validity (RDKit), after", "%", "samples", "higher"),
}
"""In the order of the table."""


@dataclass(frozen=True)
class RelaxedMolecules:
    """What a relaxation changes, B molecules; nothing holds of one that did not come to a minimum.

    Attributes:
        relaxed: it came to a minimum, (B,) bool.
        strain_energies: above that minimum, eV, (B,); +inf without one.
        distances: RMSD to it after superposition, Å, (B,); +inf without one.
        same: valid, and the same SMILES there, (B,) bool.
        stable, valid: what `evaluation.molecules.Samples` says of the minimum, (B,) bool.
        smiles: there, of the largest fragment, as people write it; None if invalid.
        reasons: why there is no minimum; None where there is.
    """

    relaxed: NDArray[np.bool_]
    strain_energies: NDArray[np.float64]
    distances: NDArray[np.float64]
    same: NDArray[np.bool_]
    stable: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    smiles: tuple[str | None, ...]
    reasons: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.relaxed)


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
) -> Scorecard[RelaxedMolecules]:
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
    reasons = first_reasons([notes, *([result.reason for result in part] for part in reversed(results))])
    fine = np.array([reason is None for reason in reasons])
    same = [one.smiles is not None and one.smiles == other.smiles for one, other in zip(*records, strict=True)]
    smiles = zip(after.samples.smiles, fine, strict=True)
    samples = RelaxedMolecules(
        relaxed=fine,
        strain_energies=np.where(fine, energies[0] - energies[1], np.inf),
        distances=np.where(fine, superposed_rmsd(before, relaxed), np.inf),
        same=np.array(same) & fine,
        stable=after.samples.stable & fine,
        valid=after.samples.valid & fine,
        smiles=tuple(text if kept else None for text, kept in smiles),
        reasons=reasons,
    )
    summary = {
        "relaxed": proportion(samples.relaxed, seed, resamples),
        "strain_energy_median": median(samples.strain_energies, seed, resamples),
        "rmsd_median": median(samples.distances, seed, resamples),
        "same_molecule": proportion(samples.same, seed, resamples),
        "molecule_stability": proportion(samples.stable, seed, resamples),
        "validity": proportion(samples.valid, seed, resamples),
    }
    counts = Counter(reason for reason in reasons if reason is not None)
    return after.again(samples, METRICS, summary, {"relaxation": dict(counts.most_common())}, geometry=how)


def superposed_rmsd(one: Structures, other: Structures) -> NDArray[np.float64]:
    """Root of the mean squared distance of atoms after the best rotation and shift (Kabsch 1976), Å, (B,).

    NaN for a molecule with a coordinate that is not finite, and for one without atoms.

    Args:
        one: B molecules.
        other: the same atoms elsewhere.
    """
    mask = one.mask.cpu()[..., None].double()
    pair = [part.positions.cpu().double() for part in (one, other)]
    finite = torch.stack([positions.isfinite().all(2).all(1) for positions in pair]).all(0) & one.mask.cpu().any(1)
    atoms = mask.sum(1, keepdim=True).clamp(min=1)
    centred = []
    for part in pair:
        positions = torch.where(finite[:, None, None], part, 0.0) * mask
        centred.append((positions - positions.sum(1, keepdim=True) / atoms) * mask)
    covariance = centred[0].transpose(1, 2) @ centred[1]
    left, _, right = torch.linalg.svd(covariance)
    reflected = torch.linalg.det(left @ right) < 0
    left[reflected, :, -1] *= -1  # a rotation, not its mirror image
    moved = centred[0] @ (left @ right)
    squares = (moved - centred[1]).square().sum((1, 2)) / atoms[:, 0, 0]
    distances: NDArray[np.float64] = torch.where(finite, squares.sqrt(), torch.nan).numpy()
    return distances
