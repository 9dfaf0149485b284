"""Relaxation of one candidate by CHGNet: cell and positions. Runs in worker processes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import chgnet
import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.stress import full_3x3_to_voigt_6_stress
from chgnet.graph import CrystalGraph
from chgnet.model.model import BatchedGraph, CHGNet
from numpy.typing import NDArray
from pymatgen.core import Structure

from atomrl.data.prototypes.candidate import Candidate
from atomrl.data.prototypes.recipes import start_structure
from atomrl.data.prototypes.symmetry import space_group
from atomrl.force_fields.base import Failure

MODEL = "CHGNet 0.3.0"
_WEIGHTS = "pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar"

FORCE_TOLERANCE = 0.05
"""eV/Å, largest force on an atom and largest derivative by the cell's strain per atom (`FrechetCellFilter`)."""

MAX_STEPS = 200
MAX_SECONDS = 60.0
"""Of processor time, so that a busy machine does not decide what converges."""

MIN_DISTANCE = 0.5
"""Å. CHGNet binds overlapping atoms: two at 0.001 Å have -2.4 eV/atom and no force."""

VOLUME_PER_ATOM = (3.0, 300.0)
"""Å^3. Denser cells have so many neighbors that time and memory explode; diamond has 5.7, a molecule in its box 256."""

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
    lattice, positions = structure.lattice.matrix, structure.cart_coords
    atoms: Any = Atoms([site.specie.Z for site in structure], positions, cell=lattice, pbc=True)
    atoms.calc = _CHGNetCalculator()  # type: ignore[no-untyped-call]
    filtered: Any = FrechetCellFilter(atoms)  # type: ignore[no-untyped-call]
    optimizer: Any = BFGS(filtered, logfile=None)
    converged = False
    for converged in optimizer.irun(fmax=FORCE_TOLERANCE, steps=MAX_STEPS):
        if not converged and time.process_time() - started > MAX_SECONDS:
            raise Failure("slow")
    if not converged:
        raise Failure("unconverged")
    final = Structure(atoms.cell.array, atoms.numbers, atoms.get_scaled_positions())
    return {
        "numbers": atoms.numbers.tolist(),
        "frac_coords": np.round(atoms.get_scaled_positions(wrap=True), 6).tolist(),
        "lattice": np.round(atoms.cell.array, 6).tolist(),
        "energy": round(float(atoms.get_potential_energy()) / len(atoms), 6),
        "fmax": round(float(np.linalg.norm(filtered.get_forces(), axis=1).max()), 4),
        "steps": int(optimizer.nsteps),
        "seconds": round(time.process_time() - started, 2),
        "spacegroup_before": space_group(structure, SYMMETRY_TOLERANCE),
        "spacegroup": space_group(final, SYMMETRY_TOLERANCE),
    }


@cache
def model_hash() -> str:
    """SHA-256 of the weights file, which ships in the chgnet wheel."""
    return hashlib.sha256((Path(chgnet.__file__).parent / _WEIGHTS).read_bytes()).hexdigest()


@cache
def _model() -> CHGNet:
    with contextlib.redirect_stdout(io.StringIO()):  # it announces itself
        model = CHGNet.load(model_name="0.3.0", use_device="cpu", verbose=False)
    model.eval()
    model.requires_grad_(False)
    return model


class _CHGNetCalculator(Calculator):
    """Energy, forces and stress from one backward pass.

    CHGNet's own calculator differentiates twice, each time building a graph for second derivatives; this takes a
    third of its time.
    """

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012 - as ASE declares it

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Fill `results`: energy (eV), forces (eV/Å, (N, 3)), stress (eV/Å^3, Voigt's 6).

        Raises:
            Failure: as `relax_candidate`.
        """
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        own: Any = self.atoms
        structure = Structure(own.cell.array, own.numbers, own.get_scaled_positions())
        _check(structure)
        graph = _graph(structure)
        model = _model()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True")
            batch = BatchedGraph.from_graphs(
                [graph], model.bond_basis_expansion, model.angle_basis_expansion, compute_stress=True
            )
        learned = model._compute(batch)["e"][0] * len(structure)
        by_position, by_strain = torch.autograd.grad(learned, [batch.atom_positions[0], batch.strains[0]])
        energy = float(learned.detach()) + float(model.composition_model([graph])[0]) * len(structure)
        stress: NDArray[np.float64] = by_strain.double().numpy() / structure.volume
        if not (np.isfinite(energy) and torch.isfinite(by_position).all() and np.isfinite(stress).all()):
            raise Failure("nonfinite")
        self.results = {
            "energy": energy,
            "forces": -by_position.double().numpy(),
            "stress": full_3x3_to_voigt_6_stress(stress),  # type: ignore[no-untyped-call]
        }


def _graph(structure: Structure) -> CrystalGraph:
    """CHGNet's graph of a structure that passed `_check`."""
    try:
        graph: CrystalGraph = _model().graph_converter(structure)
    except ValueError as error:  # all that the converter raises it for
        raise Failure("isolated") from error
    return graph


def _check(structure: Structure) -> None:
    """Refuse geometries on which CHGNet is wrong or explodes.

    Raises:
        Failure: `nonfinite`, `dense`, `dilute` or `overlap`.
    """
    if not (np.isfinite(structure.frac_coords).all() and np.isfinite(structure.lattice.matrix).all()):
        raise Failure("nonfinite")
    volume = structure.volume / len(structure)
    if volume < VOLUME_PER_ATOM[0]:
        raise Failure("dense")
    if volume > VOLUME_PER_ATOM[1]:
        raise Failure("dilute")
    if len(structure.get_neighbor_list(MIN_DISTANCE)[0]):
        raise Failure("overlap")
