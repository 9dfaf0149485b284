"""Eight real crystals, and a crystal set on disk that is made of them."""

import hashlib
import json
import lzma
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, SILICON, TRICLINIC
from pymatgen.core import Lattice, Structure
from safetensors.torch import save

from atomrl.data.packed_crystals import PackedCrystals
from atomrl.data.prototype_set import CARD_FILE, SET_FILE
from atomrl.structures.cells import canonical, to_arrays


def _rock_salt(a: float, *symbols: str) -> Structure:
    return Structure(Lattice(a / 2 * (1 - np.eye(3))), symbols, [[0, 0, 0], [0.5, 0.5, 0.5]])


CRYSTALS = [
    canonical(structure)
    for structure in (
        _rock_salt(5.69, "Na", "Cl"),
        PEROVSKITE,
        CAESIUM_CHLORIDE,
        SILICON,
        TRICLINIC,
        Structure(Lattice.cubic(4.01), ["Ba", "Ti", "O", "O", "O"], PEROVSKITE.frac_coords),
        _rock_salt(4.21, "Mg", "O"),
        _rock_salt(4.03, "Li", "F"),
    )
]
VALIDATION = 2
"""The last ones are for validation, the others for training."""


def packed(structures: list[Structure] = CRYSTALS) -> PackedCrystals:
    arrays = [to_arrays(structure) for structure in structures]
    return PackedCrystals(
        np.concatenate([crystal.numbers for crystal in arrays]),
        np.concatenate([crystal.frac_coords for crystal in arrays]).astype(np.float32),
        np.stack([crystal.lattice for crystal in arrays]).astype(np.float32),
        np.array([0, *accumulate(len(crystal.numbers) for crystal in arrays)]),
    )


def write(folder: Path) -> Path:
    """The files that `load_prototypes` reads; energies and space groups are zeros."""
    crystals = packed()
    count = len(crystals)
    zeros = torch.zeros(count)
    content = save(
        {
            "numbers": torch.from_numpy(crystals.numbers).to(torch.uint8),
            "frac_coords": torch.from_numpy(crystals.frac_coords),
            "lattices": torch.from_numpy(crystals.lattices),
            "offsets": torch.from_numpy(crystals.offsets),
            **{name: zeros.clone() for name in ("energies", "formation_energies", "energies_above_hull")},
            "spacegroups": zeros.to(torch.uint8),
            "prototype_ids": zeros.to(torch.int16),
            "split_ids": (torch.arange(count) >= count - VALIDATION).to(torch.uint8),
        }
    )
    compressed = lzma.compress(content)
    folder.mkdir(parents=True)
    (folder / SET_FILE).write_bytes(compressed)
    card = {"sha256": hashlib.sha256(compressed).hexdigest(), "prototypes": ["none"]}
    (folder / CARD_FILE).write_text(json.dumps(card))
    return folder
