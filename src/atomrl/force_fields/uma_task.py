"""What a worker process does with UMA, in an environment with fairchem-core."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

from ase import Atoms
from ase.data import chemical_symbols
from fairchem.core import pretrained_mlip
from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch
from fairchem.core.units.mlip_unit import load_predict_unit
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

from atomrl.force_fields.batches import Arrays, by_crystal, by_molecule, periodic
from atomrl.structures.molecules import Geometry, neutral_info
from atomrl.workers.failure import Failure

TASK, CRYSTAL_TASK = "omol", "omat"

ELEMENTS = list(range(1, 84))
"""Of OMol25: hydrogen to bismuth."""

CRYSTAL_ELEMENTS = [number for number in range(1, 95) if number not in range(84, 89)]
"""Of OMat24 (Barroso-Luque et al. 2024, arXiv:2410.12771): 89, hydrogen to plutonium without polonium to radium."""

GATED = (
    "its weights are gated: accept the licence at https://huggingface.co/facebook/UMA and set HF_TOKEN to a token that "
    "may read it, or give model_file"
)


def describe(item: None, model: str, model_file: str | None, device: str) -> tuple[list[int], dict[str, float] | None]:
    """Elements, and energies of isolated atoms in eV, if the published weights brought them.

    Raises:
        Failure: the weights cannot be had, or are not for molecules.
    """
    unit = _with_task(model, model_file, device, TASK)
    references = unit.atom_refs.get(TASK)
    return ELEMENTS, None if references is None else neutral_atoms(references)


def evaluate(items: Sequence[Geometry], model: str, model_file: str | None, device: str) -> list[tuple[float, Any]]:
    """Energy, eV, and forces, eV/Å, (N, 3), of each molecule, as one batch."""
    atoms = [Atoms(*geometry, info=neutral_info(geometry)) for geometry in items]
    data = [AtomicData.from_ase(one, task_name=TASK, r_data_keys=["spin", "charge"]) for one in atoms]
    output = load(model, model_file, device).predict(atomicdata_list_to_batch(data))
    return by_molecule(output["energy"], output["forces"], [len(one) for one in atoms])


def describe_crystals(
    item: None, model: str, model_file: str | None, device: str, gradients: bool
) -> tuple[list[int], str]:
    """Elements, and a hash of the weights.

    Raises:
        Failure: the weights cannot be had, or are not for crystals.
    """
    unit, digest = _with_task(model, model_file, device, CRYSTAL_TASK), hashlib.sha256()
    for name, tensor in sorted(unit.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return CRYSTAL_ELEMENTS, digest.hexdigest()[:12]


def evaluate_crystals(
    items: Sequence[Arrays], model: str, model_file: str | None, device: str, gradients: bool
) -> list[tuple[float, Any, Any]]:
    """Energy of the cell, eV, and if asked for forces, eV/Å, and stress, eV/Å³, of each crystal, as one batch."""
    atoms = periodic(items)
    data = [AtomicData.from_ase(one, task_name=CRYSTAL_TASK) for one in atoms]
    output = load(model, model_file, device).predict(atomicdata_list_to_batch(data))
    return by_crystal(output, [len(one) for one in atoms], gradients)


def _with_task(model: str, model_file: str | None, device: str, task: str) -> Any:
    """The network.

    Raises:
        Failure: as `load`, or it has no such task.
    """
    unit = load(model, model_file, device)
    if task not in unit.dataset_to_tasks:
        raise Failure(f"the model has no task {task}: it knows {', '.join(unit.dataset_to_tasks)}")
    return unit


@cache
def load(model: str, model_file: str | None, device: str) -> Any:
    """The network and what it needs.

    Raises:
        Failure: the weights cannot be had.
    """
    if model_file is not None:
        return load_predict_unit(model_file, inference_settings="batch", device=device)
    if model not in pretrained_mlip.available_models:
        raise Failure(f"there is no model {model}; there are {', '.join(pretrained_mlip.available_models)}")
    try:
        return pretrained_mlip.get_predict_unit(model, inference_settings="batch", device=device)
    except GatedRepoError as error:
        raise Failure(GATED) from error
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        why = " ".join(str(error).split())
        raise Failure(f"{GATED} ({why[:90]})") from error


def neutral_atoms(references: Any) -> dict[str, float]:
    """{symbol: eV}, out of fairchem's energies by atomic number, or by atomic number and charge."""
    found = {}
    for number in ELEMENTS:
        entry = references.get(number)
        energy = entry if isinstance(entry, int | float) or entry is None else entry.get(0)
        if energy is not None:
            found[chemical_symbols[number]] = float(energy)
    return found
