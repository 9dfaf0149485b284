"""What generated molecules are judged by: profile `edm-2022`, and two others with other bonds (`chemistry.rdkit`).

Definitions of `edm-2022` follow Hoogeboom et al. 2022 (arXiv 2203.17003): stability and bonds by the distance table,
validity and SMILES (largest fragment, hydrogens written out) by RDKit from these bonds. Every number has its
denominator and a 95 % interval (`metrics.bootstrap`). Evaluation only: nothing here is part of a reward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray
from rdkit import rdBase
from torch import Tensor

from atomrl.chemistry.bond_entries import missing_pairs, no_bond_entry
from atomrl.chemistry.bonds import table_hash, valence
from atomrl.chemistry.rdkit import PERCEIVED, PROTOCOL, SINGLE_BONDS, RdkitRecord
from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.core.protocols import Result
from atomrl.core.records import Structures
from atomrl.evaluation.definition import SKIPPED, Definition, Scorecard
from atomrl.measures.bootstrap import RESAMPLES, Estimate, distinct_ratio, mean, median, proportion, ratio
from atomrl.measures.forces import Physics, reference_energies, stack_results
from atomrl.measures.measure import component_metric
from atomrl.structures.molecules import UNKNOWN_ELEMENT
from atomrl.util.errors import UserError

BONDS: Mapping[str, Mapping[str, str]] = {
    PROTOCOL: {"bond_table_sha256": table_hash()},
    SINGLE_BONDS: {"bond_table_sha256": table_hash(), "validity": "each bond of the table counts as a single one"},
    PERCEIVED: {"bonds": "perceived by RDKit's rdDetermineBonds (xyz2mol), total charge 0"},
}
"""{profile: where its bonds come from}."""

METRICS: Mapping[str, Definition] = {
    "atom_stability": Definition("atom stability", "%", "atoms", "higher"),
    "molecule_stability": Definition("molecule stability", "%", "samples", "higher"),
    "no_bond_entry": Definition("near atoms without an entry in the bond table", "%", "samples", "neither"),
    "validity": Definition("validity (RDKit)", "%", "samples", "higher"),
    "connected_validity": Definition("valid and connected", "%", "samples", "higher"),
    "uniqueness": Definition("uniqueness (of valid)", "%", "valid", "higher"),
    "validity_x_uniqueness": Definition("validity x uniqueness", "%", "samples", "higher"),
    "novelty": Definition("novelty (of unique)", "%", "unique", "neither"),
    "valid_unique_novel": Definition("valid, unique and novel", "%", "samples", "higher"),
    "hydrogen_share": Definition("share of H among the atoms", "%", "atoms", "neither"),
    "heavy_atoms_mean": Definition("heavy atoms of a valid molecule, mean", "", "valid", "neither"),
    "without_ring": Definition("valid molecules without a ring", "%", "valid", "neither"),
    "rms_force_median": Definition("RMS force, median (failure = inf)", "eV/Å", "samples", "lower"),
    "rms_force_mean": Definition("RMS force, mean of evaluated", "eV/Å", "evaluated", "lower"),
    "force_field_failures": Definition("force field failures", "%", "samples", "lower"),
    "energy_per_atom_median": Definition("energy per atom, median (failure = inf)", "eV", "samples", "lower"),
    "energy_per_atom_mean": Definition("energy per atom, mean of evaluated", "eV", "evaluated", "lower"),
}
"""In the order of the table. Energies are relative to isolated atoms: they depend on size and composition."""


SECOND_JUDGE: Mapping[str, Definition] = {
    "known_elements": Definition("molecules of elements that the judge knows", "%", "samples", "neither"),
    **{name: replace(METRICS[name], counted="known elements") for name in ("rms_force_median", "force_field_failures")},
    "rms_force_mean": METRICS["rms_force_mean"],
}
"""What a second force field says; see `by_second_judge`."""


@dataclass(frozen=True)
class Samples:
    """Per-sample results, B samples.

    Attributes:
        sizes: atoms, (B,) int64.
        heavy_atoms: atoms other than hydrogen, (B,) int64.
        rings: number of rings of the valid molecule (SSSR), (B,); NaN if invalid.
        stable_atoms: atoms with an allowed valence, (B,) int64.
        stable: all atoms are, (B,) bool.
        no_bond_entry: atoms that are near each other have no entry in the bond table, (B,) bool; None where no pair of
            the samples' elements lacks one, or no table is asked.
        valid: by RDKit, (B,) bool.
        connected: valid and in one piece, (B,) bool.
        novel: valid and not among the training molecules, (B,) bool; None without such a set.
        smiles: of the largest fragment, as people write it; None if invalid.
        smiles_explicit_h: the same with all hydrogens written out, the molecule's name: what unique and novel go by.
        energies: eV, (B,); NaN if the evaluation failed.
        energies_per_atom: eV relative to isolated atoms, per atom, (B,); +inf if the evaluation failed or an element
            has no reference.
        rms_forces: root of the mean over atoms of |F|^2, eV/Å, (B,); +inf if the evaluation failed.
        force_reasons: why an evaluation failed; None where it did not.
        rdkit_reasons: why a molecule is invalid; None where it is valid.
    """

    sizes: NDArray[np.int64]
    heavy_atoms: NDArray[np.int64]
    rings: NDArray[np.float64]
    stable_atoms: NDArray[np.int64]
    stable: NDArray[np.bool_]
    no_bond_entry: NDArray[np.bool_] | None
    valid: NDArray[np.bool_]
    connected: NDArray[np.bool_]
    novel: NDArray[np.bool_] | None
    smiles: tuple[str | None, ...]
    smiles_explicit_h: tuple[str | None, ...]
    energies: NDArray[np.float64]
    energies_per_atom: NDArray[np.float64]
    rms_forces: NDArray[np.float64]
    force_reasons: tuple[str | None, ...]
    rdkit_reasons: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.sizes)


MoleculeScorecard = Scorecard[Samples]
"""The verdict on a set of molecules."""


@dataclass(frozen=True)
class SecondJudged:
    """What a second force field says, B samples.

    Attributes:
        known_elements: it knows all elements of the sample, (B,) bool.
        rms_forces: root of the mean over atoms of |F|^2, eV/Å, (B,); +inf if it has none.
        reasons: why it has none, `element` where it does not know one; None where it has.
    """

    known_elements: NDArray[np.bool_]
    rms_forces: NDArray[np.float64]
    reasons: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.rms_forces)


def evaluate_molecules(
    structures: Structures,
    records: Sequence[RdkitRecord],
    results: Sequence[Result] | None,
    *,
    references: Mapping[str, float],
    training: TrainingSmiles | None,
    evaluator: str,
    seed: int = 0,
    resamples: int = RESAMPLES,
    profile: str = PROTOCOL,
) -> MoleculeScorecard:
    """Judge B independent samples.

    Args:
        structures: the samples as they came, without repair.
        records: what RDKit says about each.
        results: what a force field says about each, eV and eV/Å; None to leave physical metrics out.
        references: energy of an isolated atom by symbol, eV; a molecule with an element that has none counts, for the
            energy per atom, as one whose evaluation failed.
        training: the set that novelty is measured against; None: no novelty.
        evaluator: name of the force field, for the record.
        seed: of the bootstrap.
        resamples: of the bootstrap.
        profile: by which the records were made.

    Raises:
        UserError: there is no sample, the lists differ in length, or the training set follows another protocol.
    """
    _check(structures, records, results, training, profile)
    samples = _per_sample(structures, records, results, references, training, profile)
    elements = torch.bincount(structures.numbers[structures.mask], minlength=1)
    failures = {"force_field": samples.force_reasons, "rdkit": samples.rdkit_reasons}
    return MoleculeScorecard(
        definitions=METRICS,
        profile=profile,
        conditions={
            **BONDS[profile],
            "rdkit_version": rdBase.rdkitVersion,
            "novelty_set": "none" if training is None else training.described,
            "atom_references_ev": ", ".join(f"{symbol} {energy:.6f}" for symbol, energy in references.items()),
            "intervals": f"95 %, {resamples} bootstrap resamples, seed {seed}; jackknife for uniqueness and novelty",
        },
        evaluator=SKIPPED if results is None else evaluator,
        summary=_summary(samples, results is not None, seed, resamples),
        samples=samples,
        sizes=dict(sorted(Counter(samples.sizes.tolist()).items())),
        elements={chemical_symbols[int(z)]: int(elements[z]) for z in elements.nonzero().flatten()},
        failures={
            name: dict(Counter(reason for reason in reasons if reason is not None).most_common())
            for name, reasons in failures.items()
        },
    )


def _check(
    structures: Structures,
    records: Sequence[RdkitRecord],
    results: Sequence[Result] | None,
    training: TrainingSmiles | None,
    profile: str,
) -> None:
    """Raise UserError for samples that cannot be judged."""
    counts = [len(structures), len(records), *([] if results is None else [len(results)])]
    if not len(structures) or len(set(counts)) > 1:
        raise UserError(f"cannot evaluate {counts[0]} samples with {counts[1:]} results: give one result per sample")
    if training is not None and training.protocol != profile:
        raise UserError(
            f"the training SMILES follow protocol {training.protocol!r}, the evaluation {profile!r}: rebuild them "
            "with python -m atomrl.data.qm9_assets"
        )


def _per_sample(
    structures: Structures,
    records: Sequence[RdkitRecord],
    results: Sequence[Result] | None,
    references: Mapping[str, float],
    training: TrainingSmiles | None,
    profile: str,
) -> Samples:
    """The per-sample arrays."""
    sizes = structures.sizes.cpu().numpy()
    stable_atoms = _stable_atoms(structures, records, profile)
    valid = np.array([record.valid for record in records])
    novel = None if training is None else np.zeros(len(records), dtype=np.bool_)
    if training is not None and novel is not None:
        novel[valid] = ~training.contains([record.smiles for record in records if record.smiles is not None])
    energies, rms_forces = np.full(len(sizes), np.nan), np.full(len(sizes), np.inf)
    reasons: tuple[str | None, ...] = (SKIPPED,) * len(sizes)
    if results is not None:
        physics = stack_results(results, structures)
        energies, reasons, rms_forces = physics.energies.numpy(), physics.reasons, _rms_forces(physics, sizes)
    atoms = reference_energies(structures.numbers, references).cpu().numpy()
    per_atom = (energies - atoms) / np.maximum(sizes, 1)
    return Samples(
        sizes=sizes,
        heavy_atoms=((structures.numbers > 1) & structures.mask).sum(1).cpu().numpy(),
        rings=np.array([np.nan if record.rings is None else record.rings for record in records]),
        stable_atoms=stable_atoms,
        stable=(stable_atoms == sizes) & (sizes > 0),
        no_bond_entry=None if profile == PERCEIVED else _without_entry(structures),
        valid=valid,
        connected=np.array([record.connected for record in records]),
        novel=novel,
        smiles=tuple(record.readable_smiles for record in records),
        smiles_explicit_h=tuple(record.smiles for record in records),
        energies=energies,
        energies_per_atom=np.where(np.isfinite(per_atom), per_atom, np.inf),
        rms_forces=rms_forces,
        force_reasons=reasons,
        rdkit_reasons=tuple(record.reason for record in records),
    )


def _stable_atoms(structures: Structures, records: Sequence[RdkitRecord], profile: str) -> NDArray[np.int64]:
    """Atoms with an allowed valence, (B,): by the table, or by the bonds that RDKit found, none where it found none."""
    if profile == PERCEIVED:
        return np.array([record.stable_atoms or 0 for record in records])
    found = valence(structures.numbers, structures.positions, structures.mask).stable_atoms.sum(1)
    counts: NDArray[np.int64] = found.cpu().numpy()
    return counts


def _without_entry(structures: Structures) -> NDArray[np.bool_] | None:
    """See `Samples.no_bond_entry`."""
    present = structures.numbers[structures.mask].unique().tolist()
    if not missing_pairs([chemical_symbols[number] for number in present]):
        return None
    found = no_bond_entry(structures.numbers, structures.positions, structures.mask) > 0
    lacking: NDArray[np.bool_] = found.cpu().numpy()
    return lacking


def _rms_forces(physics: Physics, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Root of the mean over atoms of |F|^2, eV/Å, (B,); +inf if the evaluation failed."""
    squares = physics.forces.square().sum((1, 2)).numpy()
    rms_forces = np.sqrt(squares / np.maximum(sizes, 1))
    evaluated = np.array([reason is None for reason in physics.reasons])
    return np.where(np.isfinite(rms_forces) & evaluated, rms_forces, np.inf)


def _summary(samples: Samples, physics: bool, seed: int, resamples: int) -> dict[str, Estimate]:
    """All estimates, in the order of `METRICS`."""
    smiles = samples.smiles_explicit_h
    names = {text: label for label, text in enumerate(dict.fromkeys(smiles)) if text is not None}
    labels = np.array([-1 if text is None else names[text] for text in smiles])
    atoms, stable_atoms = samples.sizes.astype(np.float64), samples.stable_atoms.astype(np.float64)
    summary = {
        "atom_stability": ratio(stable_atoms, atoms, seed, resamples),
        "molecule_stability": proportion(samples.stable, seed, resamples),
    }
    if samples.no_bond_entry is not None:
        summary["no_bond_entry"] = proportion(samples.no_bond_entry, seed, resamples)
    summary |= {
        "validity": proportion(samples.valid, seed, resamples),
        "connected_validity": proportion(samples.connected, seed, resamples),
        "uniqueness": distinct_ratio(labels, samples.valid, "labelled"),
        "validity_x_uniqueness": distinct_ratio(labels, samples.valid, "samples"),
    }
    if samples.novel is not None:
        summary |= {
            "novelty": distinct_ratio(labels, samples.novel, "distinct"),
            "valid_unique_novel": distinct_ratio(labels, samples.novel, "samples"),
        }
    hydrogens, rings = (samples.sizes - samples.heavy_atoms).astype(np.float64), samples.rings[samples.valid]
    summary |= {
        "hydrogen_share": ratio(hydrogens, atoms, seed, resamples),
        "heavy_atoms_mean": mean(samples.heavy_atoms[samples.valid].astype(np.float64), seed, resamples),
        "without_ring": proportion(rings == 0, seed, resamples),
    }
    if not physics:
        return summary
    return summary | {
        "rms_force_median": median(samples.rms_forces, seed, resamples),
        "rms_force_mean": mean(samples.rms_forces, seed, resamples),
        "force_field_failures": proportion(np.isinf(samples.rms_forces), seed, resamples),
        "energy_per_atom_median": median(samples.energies_per_atom, seed, resamples),
        "energy_per_atom_mean": mean(samples.energies_per_atom, seed, resamples),
    }


def by_second_judge(
    metrics: MoleculeScorecard,
    structures: Structures,
    results: Sequence[Result],
    judge: str,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Scorecard[SecondJudged]:
    """The forces of molecules that are judged already, by another force field.

    Args:
        metrics: the verdict on B molecules.
        structures: those.
        results: of the other force field. A molecule with an element that it does not know (reason `element`) is left
            out; any other failure counts as infinite.
        judge: name of the other force field.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    physics = stack_results(results, structures.to(torch.device("cpu")))
    known = np.array([reason != UNKNOWN_ELEMENT for reason in physics.reasons])
    samples = SecondJudged(known, _rms_forces(physics, metrics.samples.sizes), tuple(physics.reasons))
    forces = samples.rms_forces[known]
    summary = {"known_elements": proportion(known, seed, resamples)}
    if known.any():
        summary |= {
            "rms_force_median": median(forces, seed, resamples),
            "rms_force_mean": mean(forces, seed, resamples),
            "force_field_failures": proportion(np.isinf(forces), seed, resamples),
        }
    reasons = Counter(reason for reason in samples.reasons if reason is not None)
    failures = {"second_judge": dict(reasons.most_common())}
    return metrics.again(samples, SECOND_JUDGE, summary, failures, evaluator=judge)


def with_components(
    metrics: MoleculeScorecard, values: Mapping[str, Tensor], seed: int = 0, resamples: int = RESAMPLES
) -> MoleculeScorecard:
    """The verdict with a row for each component of the user's: the mean of what it computed.

    Args:
        metrics: of B molecules.
        values: {name: (B,)}, raw; NaN where a component has no value.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    definitions = {
        component_metric(name): Definition(f"reward component {name}, mean", "", "scored", "higher") for name in values
    }
    summary = {component_metric(name): mean(column.numpy(), seed, resamples) for name, column in values.items()}
    return metrics.with_rows(definitions, summary)
