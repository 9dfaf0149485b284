"""What every iteration's molecules look like, for the log: stability, elements, RDKit validity and uniqueness."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from ase.data import atomic_numbers, chemical_symbols

from atomrl.chemistry.bond_entries import missing_pairs, no_bond_entry
from atomrl.chemistry.bonds import valence
from atomrl.chemistry.rdkit import MoleculeChecker
from atomrl.core.records import Stats, Structures
from atomrl.workers.executor import Workers


class MoleculeMonitor:
    """Measures each iteration's samples; these numbers are logged whatever the reward is.

    Args:
        rdkit: ask RDKit too.
        workers: of the run, or a number of processes, for RDKit: one is enough.
        elements: symbols of those that the model knows: their shares are logged also where no atom is of them.
    """

    def __init__(self, rdkit: bool = True, workers: Workers | int = 1, elements: Sequence[str] = ()) -> None:
        self._known = {atomic_numbers[symbol] for symbol in elements}
        self._checker = MoleculeChecker(workers) if rdkit else None

    def measure(self, structures: Structures) -> Stats:
        """Stability, mean size and shares of the elements, shares of 1.

        Where the bond table has no entry for a pair of the elements, also the share of molecules in which such atoms
        are near each other.

        With RDKit also validity, uniqueness of the valid and their product, and how many of the valid are stable; NaN
        if none is valid.
        """
        structures = structures.to(torch.device("cpu"))
        verdict = valence(structures.numbers, structures.positions, structures.mask)
        atoms = structures.numbers[structures.mask]
        stats = {
            "molecule_stability": float(verdict.molecule_stable.double().mean()),
            "atom_stability": float(verdict.stable_atoms.sum() / structures.mask.sum()),
            "mean_atoms": float(structures.sizes.double().mean()),
        }
        shares = {chemical_symbols[z]: (atoms == z).double().mean() for z in sorted({*atoms.tolist()} | self._known)}
        if missing_pairs(shares):
            lacking = no_bond_entry(structures.numbers, structures.positions, structures.mask) > 0
            stats["no_bond_entry"] = float(lacking.double().mean())
        stats |= {f"share_{symbol}": float(found) for symbol, found in shares.items()}
        if self._checker is not None:
            records = self._checker.check(structures)
            names = [record.smiles for record in records if record.smiles is not None]
            stable = verdict.molecule_stable[torch.tensor([record.valid for record in records])]
            stats["rdkit_validity"] = len(names) / len(structures)
            stats["rdkit_uniqueness"] = len(set(names)) / max(1, len(names))
            stats["validity_x_uniqueness"] = len(set(names)) / len(structures)
            stats["stability_given_rdkit_valid"] = float(stable.double().mean()) if len(stable) else math.nan
        return stats

    def close(self) -> None:
        """End the worker."""
        if self._checker is not None:
            self._checker.close()
