"""Properties of QM9's molecules (B3LYP/6-31G(2df,p)) from `qm9pack`, by the names that EDM gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from atomrl.core.conditioning import Property
from atomrl.data.qm9 import MoleculeSet, cache_folder, cached, columns, load_qm9, split
from atomrl.util.errors import UserError
from atomrl.util.files import write_whole

PROPERTIES: Mapping[str, tuple[str, str]] = {
    "alpha": ("Polarizability_bohr3", "Bohr^3"),
    "mu": ("Dipole_debye", "Debye"),
    "homo": ("HOMO_au", "Hartree"),
    "lumo": ("LUMO_au", "Hartree"),
    "gap": ("HOMO_LUMO_gap_au", "Hartree"),
    "r2": ("R2_bohr2", "Bohr^2"),
    "zpve": ("ZPVE_au", "Hartree"),
    "Cv": ("Heatcapacity_Cv_cal_mol_K", "cal/(mol K)"),
}
"""{name: column of qm9pack, unit}."""

CACHE_VERSION = 1


def check_names(names: Sequence[str], key: str) -> None:
    """Raise UserError for properties that QM9 does not have here.

    Raises:
        UserError: as said.
    """
    if unknown := [name for name in names if name not in PROPERTIES]:
        raise UserError(f"{key}={', '.join(unknown)}: QM9's properties are {', '.join(PROPERTIES)}")
    if len(set(names)) < len(names):
        raise UserError(f"{key}={', '.join(names)}: each property once")


def unit_of(name: str) -> str:
    """Of a property's values."""
    return PROPERTIES[name][1]


def with_properties(molecules: MoleculeSet, names: Sequence[str], cache: Path | None = None) -> MoleculeSet:
    """Molecules of QM9 with these properties, found by their ids; the first call reads the CSV files (a minute).

    Raises:
        UserError: a name that is none, `qm9pack` is not installed and nothing is cached, or what is cached is damaged.
    """
    check_names(names, "property")
    if not names:
        return molecules
    arrays = cached((cache or cache_folder()) / f"qm9-properties-v{CACHE_VERSION}.safetensors", _build)
    rows = np.searchsorted(arrays["ids"], molecules.ids)
    return replace(molecules, properties={name: arrays[name][rows] for name in names})


def distributions(molecules: MoleculeSet) -> dict[str, Property]:
    """How the properties of a set are distributed, {name: distribution by size}."""
    return {name: Property.of(molecules.sizes, values, unit_of(name)) for name, values in molecules.properties.items()}


def training_properties(names: Sequence[str]) -> dict[str, Property]:
    """The same of all training molecules of QM9.

    Raises:
        UserError: as `with_properties`.
    """
    check_names(names, "conditioning")
    return distributions(with_properties(split(load_qm9())["train"], names))


def _build(path: Path) -> None:
    """Read the columns of all molecules and write them in the order of their ids."""
    table = np.array(
        [[float(cell) for cell in row] for row in columns("Index", *(column for column, _ in PROPERTIES.values()))]
    )
    table = table[table[:, 0].argsort()]
    arrays = {name: np.ascontiguousarray(table[:, place]) for place, name in enumerate(PROPERTIES, start=1)}
    write_whole(path, save({"ids": table[:, 0].astype(np.int32), **arrays}))
