"""Relaxation of one candidate by CHGNet: cell and positions. Runs in worker processes."""

from __future__ import annotations

import hashlib
import math
import time
from functools import cache
from typing import Any

import numpy as np
from ase.optimize import BFGS
from pymatgen.core import Structure

from atomrl.force_fields.chgnet import CHGNetCalculator, weights_file
from atomrl.force_fields.relax import Relaxation, relax
from atomrl.structures.crystals import CellBounds
from atomrl.workers.failure import Failure
from tools.prototypes.candidate import Candidate
from tools.prototypes.recipes import start_structure
from tools.prototypes.symmetry import space_group

WEIGHTS = "0.3.0"
"""Of CHGNet, see `force_fields.chgnet`."""

MODEL = f"CHGNet {WEIGHTS}"

FORCE_TOLERANCE = 0.05
"""eV/Å, largest force on an atom and largest derivative by the cell's strain per atom (`FrechetCellFilter`)."""

MAX_STEPS = 200
MAX_SECONDS = 60.0
"""Of processor time."""

BOUNDS = CellBounds(
    min_length=0.0,
    max_length=math.inf,
    min_angle=0.0,
    max_angle=180.0,
    min_volume=3.0,
    max_volume=300.0,
    min_distance=0.5,
    min_covalent_ratio=0.0,
)
"""Wider than for generated crystals: candidates start from guessed volumes, and `finish` judges where they end. CHGNet
binds overlapping atoms (two at 0.001 Å have -2.4 eV/atom and no force), and dense cells have so many neighbors that
time and memory explode. Diamond has 5.7 Å^3 per atom, a molecule in its box 256."""

REASONS = {
    "nan": "nonfinite",
    "calculator: nonfinite_result": "nonfinite",
    "calculator: isolated": "isolated",
}
"""Words of the lines of a build where they differ from those of `force_fields.relax`; for `volume` see `_reason`."""

SYMMETRY_TOLERANCE = 0.1
"""Å, of the space groups reported before and after."""


def relax_candidate(item: dict[str, Any]) -> dict[str, Any]:
    """Task of a worker: relax the candidate with these fields (`kind`, `prototype`, `elements`).

    Returns:
        Plain values: `numbers`, `frac_coords` (N, 3), `lattice` (3, 3; Å), `energy` (eV/atom), `fmax` (eV/Å), `steps`,
        `seconds` (of processor time), `spacegroup_before`, `spacegroup`.

    Raises:
        Failure: `overlap`, `dense`, `dilute`, `isolated` or `nonfinite` for a geometry that the force field must not
            see or did not survive, `unconverged` after `MAX_STEPS`, `slow` after `MAX_SECONDS`.
    """
    elements = {str(old): str(new) for old, new in item["elements"]}
    return relax_structure(start_structure(Candidate.make(item["kind"], item["prototype"], elements)))


def relax_structure(structure: Structure) -> dict[str, Any]:
    """Relax a structure; returns and raises as `relax_candidate`."""
    started = time.process_time()
    calculator = CHGNetCalculator(WEIGHTS)
    relaxation = relax(structure, calculator, FORCE_TOLERANCE, MAX_STEPS, BOUNDS, BFGS, MAX_SECONDS)
    if relaxation.reason is not None:
        raise Failure(_reason(relaxation, relaxation.reason))
    final = relaxation.structure
    return {
        "numbers": list(final.atomic_numbers),
        "frac_coords": np.round(final.frac_coords, 6).tolist(),
        "lattice": np.round(final.lattice.matrix, 6).tolist(),
        "energy": round(relaxation.energy_per_atom, 6),
        "fmax": round(relaxation.fmax, 4),
        "steps": relaxation.steps,
        "seconds": round(time.process_time() - started, 2),
        "spacegroup_before": space_group(structure, SYMMETRY_TOLERANCE),
        "spacegroup": space_group(final, SYMMETRY_TOLERANCE),
    }


@cache
def model_hash() -> str:
    """SHA-256 of the weights file, which ships in the chgnet wheel; a build is resumed with the same only."""
    return hashlib.sha256(weights_file(WEIGHTS).read_bytes()).hexdigest()


def _reason(relaxation: Relaxation, reason: str) -> str:
    """The reason in the words of a build, which the cards of finished sets count."""
    if reason == "volume":
        return "dense" if relaxation.structure.volume < BOUNDS.min_volume * len(relaxation.structure) else "dilute"
    return REASONS.get(reason, reason)
