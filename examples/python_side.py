"""Train on a reward of your own in one call; then its log, and fresh molecules of the trained model."""

import sys

from ase import Atoms

import atomrl


def oxygen_share(molecules: list[Atoms]) -> list[float]:
    """Share of oxygen among the atoms of each molecule; larger is better."""
    return [float((molecule.numbers == 8).mean()) for molecule in molecules]


words = ["dataloader.epoches=5", "evaluation.samples=20", *sys.argv[1:]]  # any key=value of `atomrl train`
run = atomrl.train("demo", words, reward=["xtb", oxygen_share])  # beside the forces of GFN2-xTB
print(run, run.columns["raw_oxygen_share"], sep="\n")
print(*(molecule.get_chemical_formula() for molecule in run.sample(10)), sep="\n")
