"""What rewards share: results of a force field as tensors, and the atoms' reference energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from torch import Tensor

from atomrl.core.protocols import Result
from atomrl.core.records import Structures
from atomrl.util.errors import UserError


@dataclass(frozen=True)
class Physics:
    """What a force field said about B structures.

    Attributes:
        energies: eV, (B,) float64; NaN if failed.
        forces: eV/Å, (B, N, 3) float64, 0 where padded; NaN on a failed structure's atoms.
        reasons: why an evaluation failed, one per structure, None where it did not.
    """

    energies: Tensor
    forces: Tensor
    reasons: tuple[str | None, ...]


def stack_results(results: Sequence[Result], structures: Structures) -> Physics:
    """The results of a force field, padded like the structures that they belong to, on the CPU.

    Raises:
        UserError: a result without a reason has no forces.
    """
    mask = structures.mask.cpu()
    forces = torch.zeros(*mask.shape, 3, dtype=torch.float64)
    if results:
        forces[mask] = torch.from_numpy(np.concatenate([_forces_of(result) for result in results], dtype=np.float64))
    energies = torch.tensor([result.energy for result in results], dtype=torch.float64)
    return Physics(energies, forces, tuple(result.reason for result in results))


def _forces_of(result: Result) -> NDArray[np.float64]:
    """Forces, (N, 3)."""
    if result.forces is None:  # a force field of the user's may leave them out, which crystals' energies can do without
        raise UserError("the force field gives no forces, which a molecule needs: let each result have them, eV/Å")
    return result.forces


def reference_energies(numbers: Tensor, references: Mapping[str, float]) -> Tensor:
    """Sum of the atoms' reference energies, (B,) float64; NaN for a structure with an element that has none.

    Args:
        numbers: atomic numbers, (B, N) int64, 0 where padded.
        references: {symbol: eV}.

    Raises:
        UserError: a name that is no element's symbol.
    """
    strangers = [symbol for symbol in references if symbol not in atomic_numbers]
    if strangers:
        raise UserError(f"atom references are given by symbol (H, C, ...), got {', '.join(map(repr, strangers))}")
    table = torch.full((len(chemical_symbols),), torch.nan, dtype=torch.float64, device=numbers.device)
    table[0] = 0.0
    for symbol, energy in references.items():
        table[atomic_numbers[symbol]] = energy
    return table[numbers].sum(1)
