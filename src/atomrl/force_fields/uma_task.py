"""What a worker process does with UMA, in an environment with fairchem-core."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from ase import Atoms
from ase.data import chemical_symbols
from fairchem.core import pretrained_mlip
from fairchem.core.datasets.atomic_data import AtomicData, atomicdata_list_to_batch
from fairchem.core.units.mlip_unit import load_predict_unit
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

from atomrl.force_fields.batches import by_molecule
from atomrl.structures.molecules import Geometry, odd_electrons
from atomrl.workers.failure import Failure

TASK = "omol"

ELEMENTS = list(range(1, 84))
"""Of OMol25: hydrogen to bismuth."""

GATED = (
    "its weights are gated: accept the licence at https://huggingface.co/facebook/UMA and set HF_TOKEN to a token that "
    "may read it, or give model_file"
)


def describe(item: None, model: str, model_file: str | None, device: str) -> tuple[list[int], dict[str, float] | None]:
    """Elements, and energies of isolated atoms in eV, if the published weights brought them.

    Raises:
        Failure: the weights cannot be had, or are not for molecules.
    """
    unit = load(model, model_file, device)
    if TASK not in unit.dataset_to_tasks:
        raise Failure(f"the model has no task {TASK}: it knows {', '.join(unit.dataset_to_tasks)}")
    references = unit.atom_refs.get(TASK)
    return ELEMENTS, None if references is None else neutral_atoms(references)


def evaluate(items: Sequence[Geometry], model: str, model_file: str | None, device: str) -> list[tuple[float, Any]]:
    """Energy, eV, and forces, eV/Å, (N, 3), of each molecule, as one batch."""
    atoms = [Atoms(*geometry, info={"charge": 0, "spin": 1 + odd_electrons(geometry)}) for geometry in items]
    data = [AtomicData.from_ase(one, task_name=TASK, r_data_keys=["spin", "charge"]) for one in atoms]
    output = load(model, model_file, device).predict(atomicdata_list_to_batch(data))
    return by_molecule(output["energy"], output["forces"], [len(one) for one in atoms])


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
