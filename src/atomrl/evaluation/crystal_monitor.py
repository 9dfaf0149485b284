"""What every iteration's crystals look like, for the log: sound cells, composition validity, elements, formulas."""

from __future__ import annotations

import torch

from atomrl.core.records import Stats, Structures
from atomrl.matching.matcher import reduced_formula
from atomrl.measures.crystal_verdicts import compositions_valid
from atomrl.structures.cells import Crystal
from atomrl.structures.crystals import check_cells
from atomrl.structures.molecules import split


class CrystalMonitor:
    """Measures each iteration's samples; these numbers are logged whatever the reward is."""

    def measure(self, structures: Structures) -> Stats:
        """Shares of sound cells, valid compositions, distinct formulas and pure elements; mean size; elements.

        `effective_elements` is exp of the entropy of the atoms' elements: how many, were they equally frequent. It
        falls when a policy collapses on a few.
        """
        structures = structures.to(torch.device("cpu"))
        formulas = [reduced_formula(Crystal(z, xyz, xyz)) for z, xyz in split(structures)]
        _, counts = structures.numbers[structures.mask.bool()].unique(return_counts=True)
        shares = counts.double() / counts.sum()
        return {
            "sound_cells": sum(reason is None for reason in check_cells(structures)) / len(structures),
            "composition_validity": float(compositions_valid(structures).mean()),
            "distinct_formulas": len(set(formulas)) / len(formulas),
            "pure_elements": sum(len(formula) == 1 for formula in formulas) / len(formulas),
            "mean_atoms": float(structures.sizes.double().mean()),
            "effective_elements": float(torch.exp(-(shares * shares.log()).sum())),
        }

    def close(self) -> None:
        """Nothing to give back."""
