"""CHGNet, the default energies of crystals: a graph network at the level of Materials Project, batched.

Source: Deng et al. 2023, doi 10.1038/s42256-023-00716-3. Its weights ship in the package `chgnet`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from atomrl.force_fields.base import CrystalForceFieldSpec
from atomrl.force_fields.crystals import (
    CrystalBatches,
    CrystalEvaluation,
    CrystalForceField,
    checked,
    failed,
    place_of,
    unknown_gradients,
)
from atomrl.structures.cells import Crystal
from atomrl.structures.crystals import CellBounds
from atomrl.util.errors import UserError
from atomrl.util.optional_imports import extra
from atomrl.workers.executor import Workers
from atomrl.workers.failure import Failure

with extra("crystals"):
    import chgnet
    from chgnet.model import CHGNet

    from atomrl.force_fields.chgnet_graph import crystal_graph

CORRECTIONS = {"0.3.0": "MP2020", "0.2.0": "MP2020"}
"""Correction scheme that each set of weights was trained on: their energies are those of Materials Project after
MaterialsProject2020Compatibility. A hull must be on the same scale."""


class CHGNetForceField(CrystalForceField):
    """Energies, and if asked for forces and stress, of crystals; implements `protocols.ForceField`.

    Cells are checked first (`crystals.check_cells`: overlapping atoms would be a reward hack, a dense cell takes all
    memory); what passes is evaluated in batches. Reasons besides those of the check: `nonfinite_result`, `isolated`,
    and with workers `timeout`, `worker_died`.

    Args:
        weights: version of the published weights, a key of `CORRECTIONS`.
        gradients: whether to compute forces and stress (about 3 times the time).
        batch_size: crystals evaluated together.
        workers: of the run, or a number of processes, on the CPU; 0 evaluates in this process.
        timeout: seconds per batch in a worker.
        device: e.g. `cuda`; None takes a GPU if there is one. Only without workers.
        bounds: of the cells.

    Attributes:
        elements: atomic numbers that it knows, 1 to 94.
        model_id: version and hash of the weights; with `correction` it keys a hull.
        correction: correction scheme of the energies.

    Raises:
        UserError: unknown weights, a device beside workers, or an extra that is not installed.
    """

    elements = frozenset(range(1, 95))

    def __init__(
        self,
        weights: str = "0.3.0",
        gradients: bool = False,
        batch_size: int = 16,
        workers: Workers | int = 0,
        timeout: float = 60.0,
        device: str | None = None,
        bounds: CellBounds | None = None,
    ) -> None:
        if weights not in CORRECTIONS:
            raise UserError(f"CHGNet has no weights {weights!r}: choose one of {', '.join(CORRECTIONS)}")
        self.correction = CORRECTIONS[weights]
        self.model_id = model_id(weights)
        settings = {"weights": weights, "gradients": gradients}
        super().__init__(CrystalBatches(evaluate_crystals, settings, batch_size, workers, timeout, device), bounds)


class CHGNetCalculator(Calculator):
    """CHGNet as an ASE calculator of one crystal, e.g. for `relax.relax`; not chgnet's own, which prints and is slower.

    Args:
        weights: key of `CORRECTIONS`.
        device: where to compute.
    """

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012 - ASE's convention

    def __init__(self, weights: str = "0.3.0", device: str = "cpu") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._settings = {"weights": weights, "device": device}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results`: energy in eV, forces in eV/Å, stress in eV/Å³ (Voigt order).

        Raises:
            CalculationFailed: `isolated` or `nonfinite_result`.
        """
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        frac_coords = self.atoms.get_scaled_positions()
        crystal = Crystal(self.atoms.numbers, frac_coords, self.atoms.cell.array)
        result = evaluate_crystals([crystal], gradients=True, **self._settings)[0]
        if result.reason is not None:
            raise CalculationFailed(result.reason)
        self.results = {
            "energy": result.energy,
            "free_energy": result.energy,
            "forces": result.forces,
            "stress": full_3x3_to_voigt_6_stress(result.stress),  # type: ignore[no-untyped-call]
        }


def evaluate_crystals(item: list[Crystal], weights: str, device: str, gradients: bool) -> list[CrystalEvaluation]:
    """Evaluate crystals as one batch. Also the task of the workers.

    Forces and stress follow from the derivatives with respect to fractional coordinates f and lattice L (rows):
    dE/dx = dE/df L^-T, and dE/dstrain = L^T dE/dL. CHGNet's own way builds the graph of second derivatives too, which
    training needs and which takes 6 times the time and gigabytes.

    Args:
        item: crystals that passed `check_cells`.
        weights: key of `CORRECTIONS`.
        device: where to compute.
        gradients: whether to compute forces and stress.
    """
    results: list[CrystalEvaluation | None] = []
    graphs = []
    for crystal in item:
        try:
            graphs.append(crystal_graph(crystal))
            results.append(None)
        except Failure as failure:
            results.append(failed(len(crystal.numbers), failure.reason))
    sound = [crystal for crystal, result in zip(item, results, strict=True) if result is None]
    evaluated = iter(_evaluate_graphs(sound, graphs, load_model(weights, device), device, gradients) if graphs else [])
    return [next(evaluated) if result is None else result for result in results]


@cache
def load_model(weights: str, device: str = "cpu") -> CHGNet:
    """The network on a device, in evaluation mode; loaded once per process.

    `CHGNet.load` unpickles the file and so may run code in it; this reads tensors and plain values only.
    """
    # In `CHGNet.load` the two published versions differ in this flag too.
    options = {"mlp_out_bias": weights == "0.2.0", "version": weights}
    stored = torch.load(weights_file(weights), map_location="cpu", weights_only=True)
    with contextlib.redirect_stdout(io.StringIO()):  # the constructor prints its number of parameters
        model: CHGNet = CHGNet.from_dict(stored["model"], **options)
    return model.to(device).eval().requires_grad_(False)


@cache
def model_id(weights: str) -> str:
    """Name, version and hash of published weights, e.g. `chgnet-0.3.0-0123456789ab`."""
    digest = hashlib.sha256()
    state = torch.load(weights_file(weights), map_location="cpu", weights_only=True)["model"]["state_dict"]
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].numpy().tobytes())
    return f"chgnet-{weights}-{digest.hexdigest()[:12]}"


def weights_file(weights: str) -> Path:
    """The file of these weights in the installed package."""
    found = sorted((Path(chgnet.__file__).parent / "pretrained" / weights).glob("*.pth.tar"))
    if len(found) != 1:
        raise UserError(f"chgnet {version('chgnet')} has no weights {weights}: pip install 'atomrl[crystals]'")
    return found[0]


def _evaluate_graphs(
    crystals: Sequence[Crystal], graphs: Sequence[Any], model: CHGNet, device: str, gradients: bool
) -> list[CrystalEvaluation]:
    """Energies and, if asked for, gradients of one batch."""
    sizes = np.array([len(crystal.numbers) for crystal in crystals])
    moved = [graph.to(device) for graph in graphs]
    with torch.set_grad_enabled(gradients), warnings.catch_warnings():
        # chgnet copies volumes that depend on the lattice into a tensor of numbers
        warnings.filterwarnings("ignore", "Converting a tensor with requires_grad=True to a scalar", UserWarning)
        per_atom = model(moved, task="e")["e"]
        total = (per_atom * torch.as_tensor(sizes, dtype=per_atom.dtype, device=per_atom.device)).sum()
    energies = per_atom.detach().cpu().double().numpy() * sizes
    if not gradients:
        return [checked(energy, unknown_gradients(size)) for energy, size in zip(energies, sizes, strict=True)]
    leaves = [graph.atom_frac_coord for graph in graphs] + [graph.lattice for graph in graphs]
    slopes = [slope.cpu().double().numpy() for slope in torch.autograd.grad(total, leaves)]
    results = []
    for crystal, energy, by_place, by_lattice in zip(
        crystals, energies, slopes[: len(graphs)], slopes[len(graphs) :], strict=True
    ):
        forces = -by_place @ np.linalg.inv(crystal.lattice).T
        stress = crystal.lattice.T @ by_lattice / abs(np.linalg.det(crystal.lattice))
        results.append(checked(energy, forces, (stress + stress.T) / 2))
    return results


def _make_crystals(
    settings: Mapping[str, Any], weights: str = "0.3.0", batch_size: int | None = None, timeout: float = 60.0
) -> CHGNetForceField:
    """Out of a configuration."""
    size = settings["batch_size"] if batch_size is None else batch_size
    return CHGNetForceField(weights, settings["gradients"], size, timeout=timeout, **place_of(settings))


CRYSTAL_SPEC = CrystalForceFieldSpec(_make_crystals, "hull.json")
