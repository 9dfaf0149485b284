"""CHGNet, the default energies of crystals: a graph network at the level of Materials Project, batched.

Source: Deng et al. 2023, doi 10.1038/s42256-023-00716-3. Its weights ship in the package `chgnet`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from atomrl.chemistry.crystals import CellBounds, check_cells, to_crystals
from atomrl.chemistry.niggli import Crystal
from atomrl.errors import UserError
from atomrl.extras import extra
from atomrl.force_fields.base import Evaluation, Failure
from atomrl.force_fields.pool import Outcome, WorkerPool
from atomrl.records import Structures

with extra("crystals"):
    import chgnet
    from chgnet.model import CHGNet

    from atomrl.force_fields.chgnet_graph import crystal_graph

CORRECTIONS = {"0.3.0": "MP2020", "0.2.0": "MP2020"}
"""Correction scheme that each set of weights was trained on: their energies are those of Materials Project after
MaterialsProject2020Compatibility. A hull must be on the same scale."""


@dataclass(frozen=True)
class CrystalEvaluation(Evaluation):
    """Energy, forces and stress of a crystal.

    Attributes:
        energy: of the cell, eV (CHGNet itself says eV per atom); NaN if failed.
        forces: eV/Å, (N, 3); NaN if failed or not asked for.
        stress: (dE/dstrain) / volume, eV/Å³, (3, 3); NaN if failed or not asked for.
    """

    stress: NDArray[np.float64] = field(default_factory=lambda: np.full((3, 3), np.nan))


class CHGNetForceField:
    """Energies, and if asked for forces and stress, of crystals; implements `protocols.ForceField`.

    Cells are checked first (`crystals.check_cells`: overlapping atoms would be a reward hack, a dense cell takes all
    memory); what passes is evaluated in batches. Reasons besides those of the check: `nonfinite_result`, and with
    workers `timeout`, `worker_died`.

    Args:
        weights: version of the published weights, a key of `CORRECTIONS`.
        gradients: whether to compute forces and stress (about 3 times the time).
        batch_size: crystals evaluated together.
        workers: processes with one thread each, on the CPU; 0 evaluates in this process.
        timeout: seconds per batch in a worker. A batch that is lost (time-out, death of the worker) is evaluated
            again crystal by crystal, so that only the culprit stays without a score.
        device: e.g. `cuda`; None takes a GPU if there is one. Only without workers.
        bounds: of the cells.

    Attributes:
        elements: atomic numbers that it knows, 1 to 94.
        model_id: version and hash of the weights; with `correction` it keys a hull.
        correction: correction scheme of the energies.

    Raises:
        UserError: unknown weights, a device beside workers, or an extra that is not installed.
    """

    elements: frozenset[int] = frozenset(range(1, 95))

    def __init__(
        self,
        weights: str = "0.3.0",
        gradients: bool = False,
        batch_size: int = 16,
        workers: int = 0,
        timeout: float = 60.0,
        device: str | None = None,
        bounds: CellBounds | None = None,
    ) -> None:
        if weights not in CORRECTIONS:
            raise UserError(f"CHGNet has no weights {weights!r}: choose one of {', '.join(CORRECTIONS)}")
        if batch_size < 1 or workers < 0:
            raise UserError(f"batch_size must be at least 1 and workers at least 0, got {batch_size} and {workers}")
        if workers and device not in (None, "cpu"):
            raise UserError(f"CHGNet's workers run on the CPU, got device={device!r}: set workers to 0")
        chosen = device or ("cuda" if torch.cuda.is_available() and not workers else "cpu")
        self.correction = CORRECTIONS[weights]
        self.model_id = model_id(weights)
        self.bounds = bounds or CellBounds()
        self._batch_size = batch_size
        self._settings: dict[str, Any] = {"weights": weights, "device": chosen, "gradients": gradients}
        task = "atomrl.force_fields.chgnet:evaluate_crystals"
        self._pool = WorkerPool(task, workers, timeout, self._settings) if workers else None

    def evaluate(self, structures: Structures) -> list[CrystalEvaluation]:
        """Energy (eV), forces (eV/Å) and stress (eV/Å³) of each crystal, in order.

        Raises:
            UserError: the structures have no cell, or the workers cannot start.
        """
        reasons = check_cells(structures, self.elements, self.bounds)
        sound = torch.tensor([reason is None for reason in reasons], dtype=torch.bool)
        results = iter(self._evaluate(to_crystals(structures[sound.to(structures.numbers.device)])))
        return [
            next(results) if reason is None else _failed(size, reason)
            for size, reason in zip(structures.sizes.tolist(), reasons, strict=True)
        ]

    def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            self._pool.close()

    def _evaluate(self, crystals: Sequence[Crystal]) -> list[CrystalEvaluation]:
        """Results of crystals that passed the check."""
        starts = range(0, len(crystals), self._batch_size)
        batches = [list(crystals[start : start + self._batch_size]) for start in starts]
        if self._pool is None:
            return [result for batch in batches for result in evaluate_crystals(batch, **self._settings)]
        outcomes = self._pool.map(batches)
        lost = [index for index, outcome in enumerate(outcomes) if outcome.reason is not None]
        singles = [crystal for index in lost if len(batches[index]) > 1 for crystal in batches[index]]
        again = iter(self._pool.map([[crystal] for crystal in singles]))
        results = []
        for batch, outcome in zip(batches, outcomes, strict=True):
            one_by_one = outcome.reason is not None and len(batch) > 1
            parts = [next(again) for _ in batch] if one_by_one else [outcome]
            results += _unpack(batch, parts)
        return results


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
            results.append(_failed(len(crystal.numbers), failure.reason))
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
    stored = torch.load(_weights_file(weights), map_location="cpu", weights_only=True)
    with contextlib.redirect_stdout(io.StringIO()):  # the constructor prints its number of parameters
        model: CHGNet = CHGNet.from_dict(stored["model"], **options)
    return model.to(device).eval().requires_grad_(False)


@cache
def model_id(weights: str) -> str:
    """Name, version and hash of published weights, e.g. `chgnet-0.3.0-0123456789ab`."""
    digest = hashlib.sha256()
    state = torch.load(_weights_file(weights), map_location="cpu", weights_only=True)["model"]["state_dict"]
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].numpy().tobytes())
    return f"chgnet-{weights}-{digest.hexdigest()[:12]}"


def _weights_file(weights: str) -> Path:
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
        return [_checked(energy, np.full((size, 3), np.nan)) for energy, size in zip(energies, sizes, strict=True)]
    leaves = [graph.atom_frac_coord for graph in graphs] + [graph.lattice for graph in graphs]
    slopes = [slope.cpu().double().numpy() for slope in torch.autograd.grad(total, leaves)]
    results = []
    for crystal, energy, by_place, by_lattice in zip(
        crystals, energies, slopes[: len(graphs)], slopes[len(graphs) :], strict=True
    ):
        forces = -by_place @ np.linalg.inv(crystal.lattice).T
        stress = crystal.lattice.T @ by_lattice / abs(np.linalg.det(crystal.lattice))
        results.append(_checked(energy, forces, (stress + stress.T) / 2))
    return results


def _checked(
    energy: float, forces: NDArray[np.float64], stress: NDArray[np.float64] | None = None
) -> CrystalEvaluation:
    """The result, or `nonfinite_result`; `stress` is None where no gradients were asked for."""
    if stress is None:
        result, finite = CrystalEvaluation(float(energy), forces, None), True
    else:
        result = CrystalEvaluation(float(energy), forces, None, stress=stress)
        finite = bool(np.isfinite(forces).all() and np.isfinite(stress).all())
    return result if finite and np.isfinite(energy) else _failed(len(forces), "nonfinite_result")


def _unpack(batch: Sequence[Crystal], outcomes: Sequence[Outcome]) -> list[CrystalEvaluation]:
    """Results of a batch out of one outcome for all of it, or one for each crystal."""
    if len(outcomes) == 1 and outcomes[0].reason is None:
        whole: list[CrystalEvaluation] = outcomes[0].value
        return whole
    return [
        outcome.value[0] if outcome.reason is None else _failed(len(crystal.numbers), outcome.reason)
        for crystal, outcome in zip(batch, outcomes, strict=True)
    ]


def _failed(atoms: int, reason: str) -> CrystalEvaluation:
    """The evaluation of a crystal that has no result."""
    return CrystalEvaluation(float("nan"), np.full((atoms, 3), np.nan), reason)
