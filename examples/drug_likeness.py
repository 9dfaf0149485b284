"""Rewards by RDKit: drug-likeness, rings, logP, ease of synthesis. Functions of molecules as RDKit's own objects.

    atomrl check-reward examples/drug_likeness.py:drug_likeness --molecules
    atomrl train --config-dir examples --config-name drug_likeness

The annotation `list[Chem.Mol]` asks for them. They are sanitised, with all atoms and positions as sampled; one that
RDKit cannot sanitise has no score, and its reason. The descriptors are defined without explicit hydrogens.
"""

from __future__ import annotations

from rdkit import Chem
from rdkit.Chem import QED, Crippen
from rdkit.Contrib.SA_Score import sascorer


def drug_likeness(molecules: list[Chem.Mol]) -> list[float]:
    """QED in [0, 1], larger is more like a drug; Bickerton et al. 2012, doi 10.1038/nchem.1243."""
    return [QED.qed(Chem.RemoveHs(molecule)) for molecule in molecules]


def rings(molecules: list[Chem.Mol], most: int = 2) -> list[int]:
    """Number of rings; more than `most` count as that many."""
    return [min(most, molecule.GetRingInfo().NumRings()) for molecule in molecules]


def log_p(molecules: list[Chem.Mol], target: float = 1.5) -> list[float]:
    """Minus the distance of the octanol-water logP from a target; Wildman and Crippen 1999, doi 10.1021/ci990307l."""
    return [-abs(Crippen.MolLogP(Chem.RemoveHs(molecule)) - target) for molecule in molecules]


def ease_of_synthesis(molecules: list[Chem.Mol]) -> list[float]:
    """Minus the SA score, from -10 (hard) to -1 (easy); Ertl and Schuffenhauer 2009, doi 10.1186/1758-2946-1-8."""
    return [-sascorer.calculateScore(Chem.RemoveHs(molecule)) for molecule in molecules]
