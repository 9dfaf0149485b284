"""What the table of samples says of molecules and of crystals, as sampled and by the tables beside the main one."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from atomrl.evaluation.molecules import Samples, SecondJudged
from atomrl.evaluation.pose_checks import METRICS, CheckedPoses
from atomrl.evaluation.relaxed_molecules import RelaxedMolecules
from atomrl.evaluation.sample_table import SAMPLE_ID, SampleColumn, SampleColumns
from atomrl.measures.crystal_verdicts import CrystalVerdicts
from atomrl.measures.measure import component_metric, first_reasons

RELAXED, SECOND_JUDGE, POSES = "relaxed", "second_judge", "posebusters"
"""How the names of columns begin that are of a table beside the main one."""

FLAGS = {
    "unique": "the first of its group of matching samples",
    "novel": "matches no crystal of the reference set",
    "composition_valid": "SMACT: neutral by one oxidation state per element, and Pauling's test",
    "composition_valid_mixed_valence": "the same if every atom has a state of its own",
    "structure_valid": "no distance below 0.5 Å, and a volume",
    "stable": "at most 0 eV/atom above the hull, + 1e-5",
    "metastable": "at most 0.1 eV/atom above the hull, + 1e-5",
    "hull_holds_compound": "the hull of its elements holds a compound",
    "sun": "stable, unique and novel, where the hull holds a compound",
    "msun": "metastable, unique and novel, where the hull holds a compound",
    "sun_no_compound": "stable, unique and novel, where it holds none",
    "msun_no_compound": "metastable, unique and novel, where it holds none",
}
"""Truth values of `CrystalVerdicts.flags`."""

OF_COMPOSITION = ("composition_valid", "composition_valid_mixed_valence")
OF_ENERGY = ("stable", "metastable", "hull_holds_compound", "sun", "msun", "sun_no_compound", "msun_no_compound")
"""Those that no relaxation changes; those that another force field does."""


def crystal_columns(samples: CrystalVerdicts, ids: Sequence[str]) -> SampleColumns:
    """Of B crystals, with their ids."""
    columns = {
        **_identity(ids, samples.sizes),
        "formula": SampleColumn(samples.formulas, "reduced formula"),
        **_verdicts(samples, FLAGS),
    }
    for name, values in samples.components.items():
        columns[component_metric(name)] = SampleColumn(values, f"raw value of the reward component {name}")
    for name, values in samples.predicted.items():
        columns[f"predicted_{name}"] = SampleColumn(values, f"{name} by the predictor of evaluation.wanted")
    for name, reasons in samples.reasons.items():
        columns[f"{name}_reason"] = _no_answer(name, reasons)
    return columns


def relaxed_crystal_columns(samples: CrystalVerdicts) -> SampleColumns:
    """Of B crystals that were relaxed, converged or not; `reasons` of them has `relaxation`."""
    return {
        **_minimum(first_reasons([samples.reasons["geometry"], samples.reasons["relaxation"]])),
        **_verdicts(samples, FLAGS.keys() - {*OF_COMPOSITION}, f"{RELAXED}_", ", where its relaxation ended"),
        **{
            f"{RELAXED}_{name}_reason": _no_answer(name, samples.reasons[name]) for name in ("matching", "e_above_hull")
        },
    }


def second_judge_crystal_columns(samples: CrystalVerdicts) -> SampleColumns:
    """Of B crystals, by another force field above its own hull."""
    reasons = first_reasons([samples.reasons["geometry"], samples.reasons["e_above_hull"]])
    return {
        **_verdicts(samples, OF_ENERGY, f"{SECOND_JUDGE}_", ", by the second judge"),
        f"{SECOND_JUDGE}_reason": SampleColumn(reasons, "why the second judge has no energy above its hull"),
    }


def molecule_columns(samples: Samples, ids: Sequence[str]) -> SampleColumns:
    """Of B molecules, with their ids."""
    rings = np.where(samples.valid, samples.rings, 0).astype(np.int64)
    columns = {
        **_identity(ids, samples.sizes),
        "heavy_atoms": SampleColumn(samples.heavy_atoms, "atoms other than hydrogen"),
        "rings": SampleColumn(rings, "number of rings of the valid molecule (SSSR)", known=samples.valid),
        "smiles": SampleColumn(samples.smiles, "of the largest fragment, without hydrogens of their own"),
        "smiles_explicit_h": SampleColumn(samples.smiles_explicit_h, "the same, hydrogens written out; its name"),
        "stable_atoms": SampleColumn(samples.stable_atoms, "atoms with an allowed valence"),
        "stable": SampleColumn(samples.stable, "all atoms have an allowed valence"),
        "valid": SampleColumn(samples.valid, "by RDKit"),
        "connected": SampleColumn(samples.connected, "valid and in one piece"),
    }
    if samples.novel is not None:
        columns["novel"] = SampleColumn(samples.novel, "valid and not among the known molecules")
    if samples.no_bond_entry is not None:
        about = "near atoms of it have no entry in the bond table"
        columns["no_bond_entry"] = SampleColumn(samples.no_bond_entry, about)
    return columns | {
        "energy": SampleColumn(samples.energies, "energy by the evaluator", "eV"),
        "energy_per_atom": SampleColumn(samples.energies_per_atom, "relative to isolated atoms", "eV/atom"),
        "rms_force": SampleColumn(samples.rms_forces, "root of the mean over atoms of |F|^2", "eV/Å"),
        "rdkit_reason": SampleColumn(samples.rdkit_reasons, "why it is not valid"),
        "force_field_reason": SampleColumn(samples.force_reasons, "why there is no energy"),
    }


def relaxed_molecule_columns(samples: RelaxedMolecules) -> SampleColumns:
    """Of B molecules that were relaxed."""
    return {
        **_minimum(samples.reasons),
        f"{RELAXED}_strain_energy": SampleColumn(samples.strain_energies, "energy above its minimum", "eV"),
        f"{RELAXED}_rmsd": SampleColumn(samples.distances, "RMSD to its minimum after superposition", "Å"),
        f"{RELAXED}_same_molecule": SampleColumn(samples.same, "valid, and the same SMILES at its minimum"),
        f"{RELAXED}_stable": SampleColumn(samples.stable, "all atoms have an allowed valence at its minimum"),
        f"{RELAXED}_valid": SampleColumn(samples.valid, "by RDKit at its minimum"),
        f"{RELAXED}_smiles": SampleColumn(samples.smiles, "at its minimum, of the largest fragment"),
    }


def second_judge_molecule_columns(samples: SecondJudged) -> SampleColumns:
    """Of B molecules, by another force field."""
    about = "root of the mean over atoms of |F|^2, by the second judge"
    return {
        f"{SECOND_JUDGE}_known_elements": SampleColumn(samples.known_elements, "the second judge knows its elements"),
        f"{SECOND_JUDGE}_rms_force": SampleColumn(samples.rms_forces, about, "eV/Å"),
        f"{SECOND_JUDGE}_reason": SampleColumn(samples.reasons, "why the second judge has no force"),
    }


def pose_columns(samples: CheckedPoses) -> SampleColumns:
    """Of B molecules that PoseBusters checked."""
    checks = {
        f"{POSES}_{name}": SampleColumn(passed, f"PoseBusters: {METRICS[name].label}")
        for name, passed in samples.passed.items()
    }
    return {**checks, f"{POSES}_reason": SampleColumn(samples.reasons, "why PoseBusters has no verdict")}


def _verdicts(samples: CrystalVerdicts, flags: Collection[str], start: str = "", said: str = "") -> SampleColumns:
    """Truth values and energies of B crystals; their names begin with `start`, their descriptions end with `said`."""
    found = {
        name: SampleColumn(samples.flags[name], about + said)
        for name, about in FLAGS.items()
        if name in samples.flags and name in flags
    }
    if samples.e_above_hull is not None:
        found["e_above_hull"] = SampleColumn(samples.e_above_hull, f"energy above the hull{said}", "eV/atom")
    if samples.energies_per_atom is not None:
        about = said or " by the evaluator"
        found["energy_per_atom"] = SampleColumn(samples.energies_per_atom, f"energy{about}", "eV/atom")
    return {f"{start}{name}": column for name, column in found.items()}


def _minimum(reasons: Sequence[str | None]) -> SampleColumns:
    """Whether B relaxations ended in a minimum, and why not."""
    relaxed = np.array([reason is None for reason in reasons])
    return {
        RELAXED: SampleColumn(relaxed, "its relaxation ended in a minimum"),
        f"{RELAXED}_reason": SampleColumn(reasons, "why its relaxation did not end in a minimum"),
    }


def _no_answer(name: str, reasons: Sequence[str | None]) -> SampleColumn:
    """Why samples lack something."""
    return SampleColumn(reasons, f"why there is no answer of {name.replace('_', ' ')}")


def _identity(ids: Sequence[str], sizes: NDArray[np.int64]) -> dict[str, SampleColumn]:
    """Which samples these are."""
    return {
        SAMPLE_ID: SampleColumn(ids, "as in the files of samples; numbered in order of the draw, or of the file"),
        "atoms": SampleColumn(sizes, "number of atoms"),
    }
