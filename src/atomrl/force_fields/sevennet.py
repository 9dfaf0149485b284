"""SevenNet-0: the second judge of crystals, an equivariant network that no training of crystals here ever sees.

Source: Park et al. 2024, doi 10.1021/acs.jctc.4c00190; the weights of 11 July 2024, trained on all of MPtrj, which ship
in the package `sevenn`.

CHGNet learned MPtrj's corrected energies, SevenNet-0 the uncorrected ones: raw PBE and PBE+U. So the corrections of
`mp2020` are added here, as its authors do where they compare it with formation energies (Matbench Discovery). Then both
are on one scale: of 270 relaxed compounds the median difference to CHGNet is 0.02 eV/atom; without corrections it is
0.3, and 0.9 for oxides and fluorides of PBE+U.

Molecules are far from what it learned, crystals of inorganic compounds: its energies of them are rough.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from ase.stress import voigt_6_to_full_3x3_stress

from atomrl.force_fields.base import Computed, CrystalForceFieldSpec, ForceFieldSpec
from atomrl.force_fields.batches import Batches, periodic
from atomrl.force_fields.crystals import (
    CrystalBatches,
    CrystalEvaluation,
    CrystalForceField,
    checked,
    place_of,
    unknown_gradients,
)
from atomrl.force_fields.molecules import MoleculeForceField
from atomrl.force_fields.mp2020 import MP2020, mp2020_correction
from atomrl.structures.cells import Crystal
from atomrl.structures.crystals import CellBounds
from atomrl.structures.molecules import Geometry
from atomrl.util.device import choose_device
from atomrl.util.errors import UserError
from atomrl.util.optional_imports import extra
from atomrl.workers.executor import Workers

with extra("sevennet"), warnings.catch_warnings():
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of torch.jit, which e3nn uses
    import sevenn
    from sevenn import _keys as keys
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.checkpoint import _config_cp_routine as complete_config
    from sevenn.model_build import build_E3_equivariant_model
    from sevenn.nn.sequential import AtomGraphSequential
    from sevenn.scripts.backward_compatibility import patch_state_dict_if_old
    from sevenn.train.dataload import unlabeled_atoms_to_graph
    from torch_geometric.data import Batch

NAME = "sevennet-0"
"""Of the model, in names of files and in `model_id`."""

WEIGHTS = "pretrained_potentials/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth"

UNKNOWN_ELEMENTS = frozenset(range(84, 89))
"""Po, At, Rn, Fr, Ra: not in MPtrj."""

ELEMENTS = frozenset(range(1, 95)) - UNKNOWN_ELEMENTS

FROM_SEVENNET = [0, 1, 2, 4, 5, 3]
"""SevenNet's order of stress is xx, yy, zz, xy, yz, zx; Voigt's is xx, yy, zz, yz, zx, xy."""


class SevenNetForceField(CrystalForceField):
    """Energies, and if asked for forces and stress, of crystals; implements `protocols.ForceField`.

    Cells are checked first, as for CHGNet. Reasons besides those of the check: `nonfinite_result`, and with workers
    `timeout`, `worker_died`. It sees no further than 5 Å. An atom without a neighbour in that distance gets the energy
    of an atom alone, which it learned from solid caesium (5.3 Å) and guesses for other elements.

    Args:
        gradients: whether to compute forces and stress (about 3 times the time).
        batch_size: crystals evaluated together; energies of 16 take half the time of 16 times one.
        workers: of the run, or a number of processes, on the CPU; 0 evaluates in this process.
        timeout: seconds per batch in a worker.
        device: e.g. `cuda`; None takes a GPU if there is one. Only without workers.
        bounds: of the cells.

    Attributes:
        elements: atomic numbers that it knows: 1 to 94 without 84 to 88.
        model_id: name, date and hash of the weights file; with `correction` it keys a hull.
        correction: `MP2020`, added to what the network says.

    Raises:
        UserError: an impossible number, a device beside workers, or an extra that is not installed.
    """

    elements = ELEMENTS
    correction = MP2020

    def __init__(
        self,
        gradients: bool = False,
        batch_size: int = 16,
        workers: Workers | int = 0,
        timeout: float = 60.0,
        device: str | None = None,
        bounds: CellBounds | None = None,
    ) -> None:
        self.model_id = model_id()
        settings = {"gradients": gradients}
        super().__init__(CrystalBatches(evaluate_crystals, settings, batch_size, workers, timeout, device), bounds)


class SevenNetMolecules(MoleculeForceField):
    """Energies and forces of molecules, without corrections, batched in this process.

    Reason of failure besides those of the checks: `nonfinite_result`. Like `SevenNetForceField` it sees no further than
    5 Å.

    Args:
        batch_size: molecules evaluated together.
        device: e.g. `cuda`; `auto` takes a GPU if there is one.

    Raises:
        UserError: an impossible number, or an extra that is not installed.
    """

    def __init__(self, batch_size: int = 16, device: str = "auto") -> None:
        compute = partial(evaluate_molecules, device=str(choose_device(device)))
        super().__init__(NAME, ELEMENTS, Batches(batch_size, compute))

    def atom_energies(self) -> Mapping[str, float]:
        """Energies per element that the network adds to what it computes, {symbol: eV}: fitted to crystals."""
        model = load_model()
        shifts = dict(model.named_modules())["rescale_atomic_energy"].get_shift()
        return {chemical_symbols[number]: shifts[place] for number, place in model.type_map.items()}


def evaluate_molecules(geometries: Sequence[Geometry], device: str) -> list[Computed]:
    """Energies and forces of some molecules, as one batch."""
    model = load_model(device, gradients=True)
    atoms = [Atoms(geometry.numbers, geometry.positions) for geometry in geometries]
    output = _evaluate(model, atoms, device, gradients=True)
    energies = _to_numpy(output[keys.PRED_TOTAL_ENERGY]).tolist()
    return [Computed(*parts) for parts in zip(energies, _forces(output, atoms), strict=True)]


def evaluate_crystals(item: list[Crystal], device: str, gradients: bool) -> list[CrystalEvaluation]:
    """Evaluate crystals as one batch, corrections included. Also the task of the workers.

    Args:
        item: one or more crystals that passed `check_cells`.
        device: where to compute.
        gradients: whether to compute forces and stress.
    """
    model = load_model(device, gradients)
    atoms = periodic(item)
    output = _evaluate(model, atoms, device, gradients)
    raw = _to_numpy(output[keys.PRED_TOTAL_ENERGY])
    energies = [energy + mp2020_correction(crystal) for energy, crystal in zip(raw, item, strict=True)]
    if not gradients:
        return [checked(energy, unknown_gradients(len(one))) for energy, one in zip(energies, atoms, strict=True)]
    forces = _forces(output, atoms)
    pressures = _to_numpy(output[keys.PRED_STRESS])[:, FROM_SEVENNET]  # SevenNet's sign is VASP's
    stresses = [-voigt_6_to_full_3x3_stress(pressure) for pressure in pressures]  # type: ignore[no-untyped-call]
    return [checked(*parts) for parts in zip(energies, forces, stresses, strict=True)]


@cache
def load_model(device: str = "cpu", gradients: bool = False) -> AtomGraphSequential:
    """The network on a device, in evaluation mode; loaded once per process.

    `sevenn`'s own loader unpickles the file and so may run code in it. This reads tensors, plain values and NumPy
    arrays of numbers only, then takes the same steps.

    Args:
        device: where to compute.
        gradients: whether it also computes forces and stress.
    """
    array = np.zeros(0, np.float32)
    rebuild: Any = array.__reduce__()[0]  # the file names it as it was called before NumPy 2
    allowed: list[Any] = [(rebuild, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype, type(array.dtype)]
    with torch.serialization.safe_globals(allowed):
        stored = torch.load(_weights_file(), map_location="cpu", weights_only=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        config = complete_config(stored["config"])
        model = build_E3_equivariant_model(config)
        model.load_state_dict(patch_state_dict_if_old(stored["model_state_dict"], config, model))
    if not gradients:
        model.delete_module_by_key("force_output")
        model.key_grad = None
    return model.to(device).eval().requires_grad_(False)


@cache
def model_id() -> str:
    """Name, date and hash of the weights file, e.g. `sevennet-0-11jul2024-0123456789ab`."""
    return f"{NAME}-11jul2024-{hashlib.sha256(_weights_file().read_bytes()).hexdigest()[:12]}"


def _weights_file() -> Path:
    """The file of the weights in the installed package."""
    path = Path(sevenn.__file__).parent / WEIGHTS
    if not path.exists():
        raise UserError(f"sevenn {version('sevenn')} has no {WEIGHTS}: pip install 'atomrl[sevennet]'")
    return path


def _evaluate(model: AtomGraphSequential, atoms: Sequence[Atoms], device: str, gradients: bool) -> Any:
    """What the network says of a batch, by SevenNet's keys. Pairs within the cutoff (Å), images included."""
    graphs = [AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(one, model.cutoff)) for one in atoms]
    with torch.set_grad_enabled(gradients):
        return model(Batch.from_data_list(graphs).to(device))


def _forces(output: Any, atoms: Sequence[Atoms]) -> list[Any]:
    """Forces on the atoms of each, eV/Å, (N, 3)."""
    return list(np.split(_to_numpy(output[keys.PRED_FORCE]), np.cumsum([len(one) for one in atoms])[:-1]))


def _to_numpy(tensor: torch.Tensor) -> Any:
    """Float64 on the CPU."""
    return tensor.detach().cpu().double().numpy()


def _make(settings: Mapping[str, Any], batch_size: int = 16) -> SevenNetMolecules:
    """Out of a configuration."""
    return SevenNetMolecules(batch_size, settings["device"])


def _make_crystals(
    settings: Mapping[str, Any], batch_size: int | None = None, timeout: float = 60.0
) -> SevenNetForceField:
    """Out of a configuration."""
    size = settings["batch_size"] if batch_size is None else batch_size
    return SevenNetForceField(settings["gradients"], size, timeout=timeout, **place_of(settings))


SPEC = ForceFieldSpec("SevenNet-0", _make)
CRYSTAL_SPEC = CrystalForceFieldSpec(_make_crystals, f"hull-{NAME}.json")
