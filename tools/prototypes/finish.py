"""From the lines of a build to the file that ships, and its card."""

from __future__ import annotations

import hashlib
import lzma
from collections import Counter
from dataclasses import asdict
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from atomrl.chemistry.hull import HullKey
from atomrl.data.formula_split import split_of
from atomrl.data.prototype_notes import read_notes
from atomrl.data.prototype_set import CARD_FILE, HULL_FILE, SET_FILE, SPLITS
from atomrl.force_fields.chgnet import CORRECTIONS, model_id
from atomrl.util.errors import UserError
from atomrl.util.files import write_json, write_whole
from tools.prototypes.build import read_records
from tools.prototypes.relax import WEIGHTS
from tools.prototypes.selection import (
    CONTACT,
    HIGHEST_ABOVE_HULL,
    LOWEST_FORMATION_ENERGY,
    VOLUME_PER_ATOM,
    SelectedCrystal,
    Selection,
    element_energies,
    select,
)

SHARES = (0.9, 0.05, 0.05)
"""Of the formulas, for train, val and test."""

LARGEST = 4_000_000
"""Bytes, of the compressed set."""

PACKAGES = ("chgnet", "torch", "pymatgen", "smact", "ase", "spglib", "numpy")


def finish(save_folder: Path, output: Path, split_seed: int = 0) -> dict[str, Any]:
    """Write the set, its hull and its card.

    Args:
        save_folder: of the build.
        output: folder of the three files.
        split_seed: seed of the split by composition.

    Returns:
        The card.

    Raises:
        UserError: there is nothing to finish, or a file cannot be written.
    """
    records = read_records(save_folder / "relaxed.jsonl")
    build = read_notes(save_folder / "build.json", "build into another folder")
    lines = hashlib.sha256((save_folder / "relaxed.jsonl").read_bytes()).hexdigest()
    selection = select(records, HullKey(model_id(WEIGHTS), CORRECTIONS[WEIGHTS], f"prototypes-{lines[:12]}"))
    if not selection.crystals:
        raise UserError(f"no plausible structure in {save_folder / 'relaxed.jsonl'}; run the build for longer")
    prototypes = sorted({crystal.prototype for crystal in selection.crystals})
    splits = [split_of(crystal.formula, split_seed, SHARES) for crystal in selection.crystals]
    content = lzma.compress(save(_tensors(selection.crystals, prototypes, splits)), preset=9 | lzma.PRESET_EXTREME)
    if len(content) > LARGEST:
        raise UserError(f"the set takes {len(content)} bytes, more than {LARGEST}; build with a smaller --limit")
    card = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "build": build,
        "hull": asdict(selection.hull.key),
        "versions": {name: version(name) for name in PACKAGES},
        **_statistics(records, selection),
        "splits": {"seed": split_seed, **{name: splits.count(index) for index, name in enumerate(SPLITS)}},
        "prototypes": prototypes,
    }
    selection.hull.save(output / HULL_FILE)
    write_whole(output / SET_FILE, content)
    write_json(output / CARD_FILE, card)
    print(
        f"{len(selection.crystals)} crystals of {len(records)} candidates, {len(content) / 1e6:.2f} MB in {output}; "
        f"dropped: {', '.join(f'{reason} {count}' for reason, count in selection.dropped.items()) or 'none'}"
    )
    return card


def _tensors(crystals: list[SelectedCrystal], prototypes: list[str], splits: list[int]) -> dict[str, Tensor]:
    """The arrays of `load.PrototypeSet`."""
    structures = [crystal.structure for crystal in crystals]
    place = {label: index for index, label in enumerate(prototypes)}
    frac_coords = np.concatenate([structure.frac_coords for structure in structures]).astype(np.float32)
    return {
        "numbers": torch.tensor([site.specie.Z for structure in structures for site in structure], dtype=torch.uint8),
        "frac_coords": torch.from_numpy(frac_coords % 1),  # 0.99999999 has become 1
        "lattices": torch.from_numpy(np.stack([structure.lattice.matrix for structure in structures])).float(),
        "offsets": torch.tensor([0, *accumulate(len(structure) for structure in structures)]),
        "energies": torch.tensor([crystal.energy for crystal in crystals]),
        "formation_energies": torch.tensor([crystal.formation_energy for crystal in crystals]),
        "energies_above_hull": torch.tensor([crystal.above_hull for crystal in crystals]),
        "spacegroups": torch.tensor([crystal.spacegroup for crystal in crystals], dtype=torch.uint8),
        "prototype_ids": torch.tensor([place[crystal.prototype] for crystal in crystals], dtype=torch.int16),
        "split_ids": torch.tensor(splits, dtype=torch.uint8),
    }


def _statistics(records: list[dict[str, Any]], selection: Selection) -> dict[str, Any]:
    """What the card says of the set."""
    crystals = selection.crystals
    above = np.array([crystal.above_hull for crystal in crystals])
    seconds = [record["seconds"] for record in records if record["reason"] is None]
    systems = Counter(crystal.structure.chemical_system for crystal in crystals if len(crystal.structure.elements) > 1)
    elements = Counter(str(element) for crystal in crystals for element in crystal.structure.elements)
    failures = Counter(record["reason"].partition(": ")[0] for record in records if record["reason"] is not None)
    return {
        "candidates": len(records),
        "crystals": len(crystals),
        "formulas": len({crystal.formula for crystal in crystals}),
        "chemical_systems_with_a_compound": len(systems),
        "elements": dict(elements.most_common()),
        "number_of_elements": _histogram(len(crystal.structure.elements) for crystal in crystals),
        "atoms_per_cell": _histogram(len(crystal.structure) for crystal in crystals),
        "space_groups": len({crystal.spacegroup for crystal in crystals}),
        "failures": dict(failures.most_common()),
        "dropped": selection.dropped,
        "criteria": {
            "shortest contact / sum of covalent radii": CONTACT,
            "volume per atom, Å^3": VOLUME_PER_ATOM,
            "lowest formation energy, eV/atom": LOWEST_FORMATION_ENERGY,
            "highest energy above hull, eV/atom": HIGHEST_ABOVE_HULL,
        },
        "energy_above_hull": {
            "on the hull": round(float((above <= 1e-6).mean()), 4),
            **{f"<= {limit} eV/atom": round(float((above <= limit).mean()), 4) for limit in (0.025, 0.05, 0.1, 0.2)},
            "median, eV/atom": round(float(np.median(above)), 4),
        },
        "reference_energies": element_energies(selection.hull.entries),
        "relaxation_seconds": {"mean": round(float(np.mean(seconds)), 2), "total": round(float(np.sum(seconds)))},
    }


def _histogram(values: Any) -> dict[str, int]:
    """Counts by value, ascending."""
    return {str(value): count for value, count in sorted(Counter(values).items())}
