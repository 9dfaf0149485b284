"""What a plain reward pays for crystals that hack it, and what is left of that with the option that stops it.

CHGNet, the shipped hull and pymatgen's matcher judge five crystals; nothing is trained.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pymatgen.core import Lattice, Structure

from atomrl.core.prompts import ungrouped
from atomrl.data.crystal_reference import CrystalReference
from atomrl.force_fields.chgnet import CHGNetForceField
from atomrl.matching.amd import AMDDistances
from atomrl.matching.matcher import CrystalMatcher
from atomrl.measures.drawn_before import DrawnBefore
from atomrl.measures.matching import AMDProvider, MatchingProvider
from atomrl.measures.physics import HullProvider
from atomrl.rewards.base import RewardComponent
from atomrl.rewards.components import CreativityReward, EnergyReward
from atomrl.rewards.fresh_formula import FreshFormulaReward
from atomrl.rewards.pure_elements import check_compounds
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.structures.crystals import from_pymatgen

FCC, MIDDLE, QUARTER = 0.5 * (1 - np.eye(3)), [0.5] * 3, [0.25] * 3
LATE, ALUMINIUM, CAO, MG2O, KF = range(5)
SAMPLES = {
    "LaTe: the hull knows no compound of La and Te": Structure(Lattice.cubic(3.87), ["La", "Te"], [[0] * 3, MIDDLE]),
    "Al: a pure element": Structure(Lattice(4.05 * FCC), ["Al"], [[0] * 3]),
    "CaO: known and stable": Structure(Lattice(4.81 * FCC), ["Ca", "O"], [[0] * 3, MIDDLE]),
    "Mg2O: new, and far above the hull": Structure(
        Lattice(5.0 * FCC), ["O", "Mg", "Mg"], [[0] * 3, QUARTER, [0.75] * 3]
    ),
    "KF as zincblende: new, and metastable": Structure(Lattice(5.9 * FCC), ["K", "F"], [[0] * 3, QUARTER]),
}
"""Lattice constants in Å."""


def main() -> None:
    """Print a table: an option, what the plain reward pays a sample, what is left with the option, and the sample."""
    names, samples = list(SAMPLES), from_pymatgen(list(SAMPLES.values()))
    reference = CrystalReference.load("prototypes")
    known = [reference.crystals.crystal(row) for row in range(len(reference.crystals))]
    drawn = DrawnBefore()
    providers = [
        HullProvider(CHGNetForceField(device="cpu"), reference.hull()),
        MatchingProvider(CrystalMatcher(known)),
        AMDProvider(AMDDistances(known)),
        drawn,
    ]

    def reward(*components: RewardComponent, **options: Any) -> ReinforceReward:
        return ReinforceReward(components, providers=providers, **options)

    def paid(sample: int, *components: RewardComponent, **options: Any) -> float:
        scores = reward(*components, **options).score(samples, ungrouped(samples))
        return float(scores.diagnostics["reward"][sample])

    energy, scaled, creative = EnergyReward(), EnergyReward(normalize_fn="norm"), CreativityReward(max_distance=1.0)
    both, discounted = (creative, scaled), (scaled, FreshFormulaReward(halved_at=4))
    found = [
        ("min_entries: 1", LATE, paid(LATE, energy), paid(LATE, EnergyReward(min_entries=1))),
        ("floor: 0.0", LATE, paid(LATE, EnergyReward(floor=None)), paid(LATE, energy)),
        ("pure_elements: false", ALUMINIUM, paid(ALUMINIUM, energy), paid(ALUMINIUM, energy, check=check_compounds)),
        *(("combine: product", row, paid(row, *both), paid(row, *both, combine="product")) for row in (CAO, MG2O, KF)),
    ]
    first = paid(CAO, *discounted, combine="product")
    for _ in range(12):
        reward(*discounted).remember(samples[CAO : CAO + 1])  # as a run does after each iteration
    found.append(("FreshFormulaReward", CAO, first, paid(CAO, *discounted, combine="product")))
    print(f"{'option':20}  {'plain':>6}  {'with it':>7}  sample")
    for option, sample, plain, guarded in found:
        print(f"{option:20}  {plain + 0:6.2f}  {guarded + 0:7.2f}  {names[sample]}")
    for provider in providers:
        provider.close()


if __name__ == "__main__":
    main()
