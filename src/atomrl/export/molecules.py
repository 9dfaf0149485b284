"""Samples as files that other programs read: SDF (with bonds) and extended XYZ (with energies and forces)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from rdkit import Chem

from atomrl.chemistry.bond_entries import have_valences
from atomrl.chemistry.bonds import valence
from atomrl.chemistry.rdkit import RdkitRecord, bonded_molecules
from atomrl.chemistry.rdkit_task import BondedMolecule, build, place
from atomrl.core.protocols import Result
from atomrl.core.records import Structures
from atomrl.export.exporter import Cell, Written
from atomrl.export.extxyz import readable_info, text_of_images
from atomrl.structures.molecules import Geometry, split
from atomrl.util.errors import UserError
from atomrl.util.files import write_whole

SDF_LIMIT = 9999.0
"""Å. The format has ten columns for a coordinate, four of them decimals."""


@dataclass(frozen=True)
class Annotated:
    """Samples with what is known about each.

    Attributes:
        structures: B molecules.
        ids: name of each.
        records: what RDKit says.
        results: what a force field says; None if it was not asked.
    """

    structures: Structures
    ids: Sequence[str]
    records: Sequence[RdkitRecord]
    results: Sequence[Result] | None = None

    def check(self) -> None:
        """Raise UserError for lists of different lengths.

        Raises:
            UserError: they differ.
        """
        counts = [len(self.structures), len(self.ids), len(self.records)]
        counts += [] if self.results is None else [len(self.results)]
        if len(set(counts)) > 1:
            raise UserError(f"cannot export samples, ids, records, results of lengths {counts}: give one of each")

    def answers(self) -> Sequence[Result | None]:
        """What the force field said about each sample; None where it was not asked."""
        return [None] * len(self.ids) if self.results is None else self.results


def write_sdf(path: Path, samples: Annotated) -> int:
    """Write what `sdf_text` makes, whole or not at all.

    Returns:
        Number of molecules written.
    """
    made = sdf_text(samples)
    write_whole(path, made.text)
    return made.held


def sdf_text(samples: Annotated) -> Written:
    """Molecules with the bonds of the distance table.

    An invalid molecule is written without bonds. One whose coordinates do not fit the format (not finite, or beyond
    `SDF_LIMIT`) is left out; `extxyz_text` has it.
    """
    samples.check()
    buffer = io.StringIO()
    writer = Chem.SDWriter(buffer)
    written = 0
    molecules = zip(bonded_molecules(samples.structures), split(samples.structures), strict=True)
    for (bonded, geometry), properties, record in zip(molecules, _properties(samples), samples.records, strict=True):
        if not (np.abs(geometry.positions) < SDF_LIMIT).all():
            continue
        writer.write(_placed(bonded if record.valid else bonded._replace(bonds=[]), geometry, properties))
        written += 1
    writer.close()
    return Written(buffer.getvalue(), written)


def write_extxyz(path: Path, samples: Annotated) -> None:
    """Write what `extxyz_text` makes, whole or not at all."""
    write_whole(path, extxyz_text(samples).text)


def extxyz_text(samples: Annotated) -> Written:
    """All samples, failed ones too; energies (eV) and forces (eV/Å) where known."""
    samples.check()
    images = []
    parts = zip(split(samples.structures), _properties(samples), samples.answers(), strict=True)
    for geometry, properties, result in parts:
        atoms = Atoms(geometry.numbers, geometry.positions, info=readable_info(properties))
        if result is not None and result.reason is None:
            atoms.calc = SinglePointCalculator(atoms, energy=result.energy, forces=result.forces)  # type: ignore[no-untyped-call]
        images.append(atoms)
    return Written(text_of_images(images), len(images))


def _properties(samples: Annotated) -> list[dict[str, Cell]]:
    """What is written beside each sample's atoms."""
    return [{"sample_id": name, **verdict} for name, verdict in zip(samples.ids, verdicts(samples), strict=True)]


def verdicts(samples: Annotated) -> list[dict[str, Cell]]:
    """What is said of each sample; no `stable` where the bond table has no valence for an element."""
    structures = samples.structures
    judged = have_valences(structures.numbers, structures.mask)
    known = structures[judged.nonzero().flatten()]
    verdicts = iter(valence(known.numbers, known.positions, known.mask).molecule_stable.tolist())
    stable = [next(verdicts) if one else None for one in judged.tolist()]
    rows: list[dict[str, Cell]] = []
    for is_stable, record, result in zip(stable, samples.records, samples.answers(), strict=True):
        row: dict[str, Cell] = {}
        if is_stable is not None:
            row["stable"] = is_stable
        row["valid"] = record.valid
        if record.smiles is not None and record.readable_smiles is not None:
            row |= {"smiles": record.readable_smiles, "smiles_explicit_h": record.smiles}
        if record.reason is not None:
            row["rdkit_reason"] = record.reason
        if result is not None and result.reason is not None:
            row["force_field_reason"] = result.reason
        elif result is not None:
            row["energy_ev"] = float(result.energy)
            row["rms_force_ev_per_angstrom"] = float(np.sqrt(np.square(result.forces).sum(1).mean()))
        rows.append(row)
    return rows


def _placed(bonded: BondedMolecule, geometry: Geometry, properties: Mapping[str, Cell]) -> Chem.Mol:
    """An RDKit molecule with coordinates and properties; not sanitised, so that it stays as it was sampled."""
    mol = build(bonded)
    mol.UpdatePropertyCache(strict=False)
    place(mol, geometry.positions)
    mol.SetProp("_Name", str(properties["sample_id"]))
    for name, value in properties.items():
        mol.SetProp(name, str(value))
    return mol
