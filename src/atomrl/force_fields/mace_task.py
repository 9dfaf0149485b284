"""What a worker process does with a MACE model, in an environment with mace-torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.data import chemical_symbols
from mace.data import AtomicData, KeySpecification, config_from_atoms
from mace.tools import AtomicNumberTable
from mace.tools.torch_geometric import Batch

from atomrl.force_fields.batches import Arrays, by_crystal, by_molecule, periodic
from atomrl.structures.molecules import Geometry, neutral_info
from atomrl.workers.failure import Failure

READ = {"total_charge": "charge", "total_spin": "spin"}
"""What models that know charge and spin read of `Atoms.info`; of crystals, which have none, they take 0 and 1."""


def describe(item: None, model_file: str, head: str | None, device: str) -> tuple[list[int], dict[str, float]]:
    """Elements, and their energies E0 in eV, which the model adds to what it computes.

    Raises:
        Failure: the file holds no MACE model, or the model has no such head.
    """
    model = load(model_file, device)
    numbers = [int(number) for number in model.atomic_numbers]
    rows = torch.atleast_2d(model.atomic_energies_fn.atomic_energies)
    energies = rows[head_of(model, head)[1]].tolist()
    return numbers, {chemical_symbols[number]: energy for number, energy in zip(numbers, energies, strict=True)}


def evaluate(items: Sequence[Geometry], model_file: str, head: str | None, device: str) -> list[tuple[float, Any]]:
    """Energy, eV, and forces, eV/Å, (N, 3), of each molecule, as one batch."""
    atoms = [Atoms(*geometry, info=neutral_info(geometry)) for geometry in items]
    output = _output(load(model_file, device), atoms, head, device, compute_force=True)
    return by_molecule(output["energy"], output["forces"], [len(one) for one in atoms])


def describe_crystals(
    item: None, model_file: str, head: str | None, device: str, gradients: bool
) -> tuple[list[int], str]:
    """Elements, and a hash of the file.

    Raises:
        Failure: as `describe`.
    """
    model = load(model_file, device)
    head_of(model, head)
    with Path(model_file).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [int(number) for number in model.atomic_numbers], digest[:12]


def evaluate_crystals(
    items: Sequence[Arrays], model_file: str, head: str | None, device: str, gradients: bool
) -> list[tuple[float, Any, Any]]:
    """Energy of the cell, eV, and if asked for forces, eV/Å, and stress, eV/Å³, of each crystal, as one batch."""
    atoms = periodic(items)
    model = load(model_file, device)
    output = _output(model, atoms, head, device, compute_force=gradients, compute_stress=gradients)
    return by_crystal(output, [len(one) for one in atoms], gradients)


def _output(model: Any, atoms: Sequence[Atoms], head: str | None, device: str, **compute: bool) -> Any:
    """What the network says of a batch, by MACE's keys."""
    torch.set_default_dtype(next(model.parameters()).dtype)  # of the batch's tensors
    table = AtomicNumberTable([int(number) for number in model.atomic_numbers])
    (name, _), keys = head_of(model, head), KeySpecification(info_keys=dict(READ))
    data = [
        AtomicData.from_config(
            config_from_atoms(one, key_specification=keys, head_name=name),
            z_table=table,
            cutoff=float(model.r_max),
            heads=heads(model),
        )
        for one in atoms
    ]
    return model(Batch.from_data_list(data).to(device).to_dict(), training=False, **compute)


@cache
def load(model_file: str, device: str) -> Any:
    """The network.

    Raises:
        Failure: the file holds none.
    """
    model = torch.load(model_file, map_location=device, weights_only=False)  # whole modules; see `mace`
    if not hasattr(model, "atomic_numbers") or not hasattr(model, "atomic_energies_fn"):
        raise Failure(f"{model_file} holds a {type(model).__name__}, no MACE model")
    return model.eval().requires_grad_(False)


def heads(model: Any) -> list[str]:
    """Names of the model's heads; an old model has one without a name."""
    return list(model.heads) if hasattr(model, "heads") else ["Default"]


def head_of(model: Any, head: str | None) -> tuple[str, int]:
    """Name and place of the head that is asked for, or the first.

    Raises:
        Failure: there is none of this name.
    """
    names = heads(model)
    if head is not None and head not in names:
        raise Failure(f"head={head}: the model has {', '.join(names)}")
    chosen = names[0] if head is None else head
    return chosen, names.index(chosen)
