"""The hull of the crystal set by another force field: all its phases evaluated again, as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from atomrl.chemistry.hull import Hull, HullEntry, HullKey
from atomrl.core.records import Structures
from atomrl.data.packed_crystals import PackedCrystals
from atomrl.data.prototype_set import HULL_FILE, PrototypeSet, hull_file, load_prototypes
from atomrl.measures.physics import HullForceField
from atomrl.reference.energies import CHUNK, energy_file, find_energies
from atomrl.structures.crystals import compositions, from_pymatgen, to_crystals
from atomrl.util.errors import UserError
from tools.prototypes.recipes import MOLECULE, start_structure
from tools.prototypes.references import reference_candidates

ON_HULL = 1e-5
"""eV/atom above the set's own hull that a phase on it may have by rounding."""


def rejudge(folder: Path, save: Path, output: Path, force_field: HullForceField, name: str) -> Hull:
    """Evaluate the phases of a finished set and write their hull; resumes where it stopped.

    Its data version is that of the set's own hull, and it knows the same elements.

    Args:
        folder: of the set, its card and its hull.
        save: folder of the energies so far, `energies-NAME.jsonl`.
        output: folder of the new hull, see `hull_file`.
        force_field: the other judge.
        name: of it.

    Raises:
        UserError: the set is missing, the saved energies are of another model or set, or an element is without energy.
    """
    own, crystals = Hull.load(folder / HULL_FILE), load_prototypes(folder)
    names, phases = reference_phases(crystals, own.elements)
    key = HullKey(force_field.model_id, force_field.correction, own.key.data_version)
    settings = {"data_version": key.data_version, "set": crystals.card["sha256"]}
    known = energy_file(save / f"energies-{name}.jsonl", force_field, **settings)
    found = find_energies(PackedCrystals.packed(to_crystals(phases)), force_field, known)
    entries = [
        HullEntry(formula, energy, name)
        for name, formula, energy in zip(names, compositions(phases), found.per_atom.tolist(), strict=True)
        if np.isfinite(energy)
    ]
    hull = Hull(key, entries)
    if own.elements - hull.elements:
        raise UserError(
            f"{force_field.model_id} gives no energy of the elements {sorted(own.elements - hull.elements)} (failures: "
            f"{found.failures}), without which a hull is not closed; run it again, or leave out crystals with these "
            "elements"
        )
    hull.save(output / hull_file(name))
    print(f"{len(entries)} of {len(names)} phases in {output / hull_file(name)}; failures: {found.failures}")
    _print_agreement(crystals, hull, names)
    return hull


def reference_phases(crystals: PrototypeSet, elements: frozenset[int]) -> tuple[list[str], Structures]:
    """Unique names and structures of all crystals of a set, and of the molecules that close its hull.

    A molecule alone in its box is no crystal of the set, so it is built again from its measured bond length; relaxation
    by CHGNet changes its energy by 0.01 eV/atom at most.

    Args:
        crystals: the set.
        elements: atomic numbers of the hull; only their molecules are taken.
    """
    boxed = [candidate for candidate in reference_candidates() if candidate.prototype.startswith(MOLECULE)]
    built = {candidate.key: start_structure(candidate) for candidate in boxed}
    molecules = {key: cell for key, cell in built.items() if {species.Z for species in cell.species} <= elements}
    own = crystals.structures(torch.arange(len(crystals)))
    labels = [crystals.prototypes[index] for index in crystals.prototype_ids.tolist()]
    names = [
        f"{label}|{formula.reduced_formula}|{row}"
        for row, (label, formula) in enumerate(zip(labels, compositions(own), strict=True))
    ]
    if not molecules:
        return names, own
    boxes = from_pymatgen(list(molecules.values()), own.positions.dtype)
    return [*names, *molecules], Structures.concatenate([own, boxes])


def _print_agreement(crystals: PrototypeSet, hull: Hull, names: Sequence[str]) -> None:
    """Say how far above the new hull the phases on the set's own one are."""
    energies = {entry.entry_id: entry.energy_per_atom for entry in hull.entries}
    on_own = (crystals.energies_above_hull <= ON_HULL).nonzero()[:, 0]
    values = [np.zeros(0)]
    for rows in on_own.split(CHUNK):
        per_atom = [energies.get(names[row], np.nan) for row in rows.tolist()]
        values.append(hull.energy_above_hull(compositions(crystals.structures(rows)), per_atom)[0])
    above = np.concatenate(values)
    above = above[np.isfinite(above)]
    if len(above):
        print(
            f"{len(above)} phases on the set's own hull are {np.median(above):.3f} eV/atom (median) above this one, "
            f"{(above <= 0.1).mean():.0%} of them at most 0.1"
        )
