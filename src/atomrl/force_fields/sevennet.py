"""SevenNet-0, the second judge of crystals: an equivariant network that no training of ours ever sees.

Source: Park et al. 2024, doi 10.1021/acs.jctc.4c00190; the weights of 11 July 2024, trained on all of MPtrj, which ship
in the package `sevenn`.

CHGNet learned MPtrj's corrected energies, SevenNet-0 the uncorrected ones: raw PBE and PBE+U. So the corrections of
`mp2020` are added here, as its authors do where they compare it with formation energies (Matbench Discovery). Then both
are on one scale: of 270 relaxed compounds the median difference to CHGNet is 0.02 eV/atom; without corrections it is
0.3, and 0.9 for oxides and fluorides of PBE+U.
"""

from __future__ import annotations

import hashlib
import warnings
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from atomrl.force_fields.crystals import CrystalEvaluation, CrystalForceField, checked
from atomrl.force_fields.mp2020 import MP2020, mp2020_correction
from atomrl.structures.cells import Crystal
from atomrl.structures.crystals import CellBounds
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

    elements = frozenset(range(1, 95)) - UNKNOWN_ELEMENTS
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
        super().__init__(evaluate_crystals, settings, batch_size, workers, timeout, device, bounds)


def evaluate_crystals(item: list[Crystal], device: str, gradients: bool) -> list[CrystalEvaluation]:
    """Evaluate crystals as one batch, corrections included. Also the task of the workers.

    Args:
        item: one or more crystals that passed `check_cells`.
        device: where to compute.
        gradients: whether to compute forces and stress.
    """
    model = load_model(device, gradients)
    batch = Batch.from_data_list([_graph(crystal, model.cutoff) for crystal in item]).to(device)
    with torch.set_grad_enabled(gradients):
        output = model(batch)
    raw = _to_numpy(output[keys.PRED_TOTAL_ENERGY])
    energies = [energy + mp2020_correction(crystal) for energy, crystal in zip(raw, item, strict=True)]
    sizes = [len(crystal.numbers) for crystal in item]
    if not gradients:
        return [checked(energy, np.full((size, 3), np.nan)) for energy, size in zip(energies, sizes, strict=True)]
    forces = np.split(_to_numpy(output[keys.PRED_FORCE]), np.cumsum(sizes)[:-1])
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


def _graph(crystal: Crystal, cutoff: float) -> AtomGraphData:
    """SevenNet's input: atoms, and their pairs within the cutoff (Å), images included."""
    atoms = Atoms(crystal.numbers, scaled_positions=crystal.frac_coords, cell=crystal.lattice, pbc=True)
    return AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(atoms, cutoff))


def _to_numpy(tensor: torch.Tensor) -> Any:
    """Float64 on the CPU."""
    return tensor.detach().cpu().double().numpy()
