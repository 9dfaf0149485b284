"""What the table of samples says of molecules and of crystals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atomrl.evaluation.molecules import Samples
from atomrl.evaluation.sample_table import SAMPLE_ID, SampleColumn, SampleColumns
from atomrl.measures.crystal_verdicts import CrystalVerdicts
from atomrl.measures.measure import component_metric

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


def crystal_columns(samples: CrystalVerdicts, ids: Sequence[str]) -> SampleColumns:
    """Of B crystals, with their ids."""
    columns = {
        **_identity(ids, samples.sizes),
        "formula": SampleColumn(samples.formulas, "reduced formula"),
        **{name: SampleColumn(samples.flags[name], about) for name, about in FLAGS.items() if name in samples.flags},
    }
    if samples.e_above_hull is not None:
        columns["e_above_hull"] = SampleColumn(samples.e_above_hull, "energy above the hull", "eV/atom")
    if samples.energies_per_atom is not None:
        columns["energy_per_atom"] = SampleColumn(samples.energies_per_atom, "energy by the evaluator", "eV/atom")
    for name, values in samples.components.items():
        columns[component_metric(name)] = SampleColumn(values, f"raw value of the reward component {name}")
    for name, values in samples.predicted.items():
        columns[f"predicted_{name}"] = SampleColumn(values, f"{name} by the predictor of evaluation.wanted")
    for name, reasons in samples.reasons.items():
        columns[f"{name}_reason"] = SampleColumn(reasons, f"why there is no answer of {name.replace('_', ' ')}")
    return columns


def molecule_columns(samples: Samples, ids: Sequence[str]) -> SampleColumns:
    """Of B molecules, with their ids."""
    columns = {
        **_identity(ids, samples.sizes),
        "smiles": SampleColumn(samples.smiles, "of the largest fragment, without hydrogens of their own"),
        "smiles_explicit_h": SampleColumn(samples.smiles_explicit_h, "the same, hydrogens written out; its name"),
        "stable_atoms": SampleColumn(samples.stable_atoms, "atoms with an allowed valence"),
        "stable": SampleColumn(samples.stable, "all atoms have an allowed valence"),
        "valid": SampleColumn(samples.valid, "by RDKit"),
        "connected": SampleColumn(samples.connected, "valid and in one piece"),
        "novel": SampleColumn(samples.novel, "valid and not among the known molecules"),
    }
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


def _identity(ids: Sequence[str], sizes: NDArray[np.int64]) -> dict[str, SampleColumn]:
    """Which samples these are."""
    return {
        SAMPLE_ID: SampleColumn(ids, "as in the files of samples; numbered in order of the draw, or of the file"),
        "atoms": SampleColumn(sizes, "number of atoms"),
    }
