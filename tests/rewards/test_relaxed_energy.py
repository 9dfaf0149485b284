"""`EnergyReward(relax_steps=N)`: energies of relaxed samples, and the relaxed crystals beside them."""

import numpy as np
import pytest
import torch
from crystal_models import small_vae
from crystal_samples import ROCK_SALT, rattled
from pymatgen.core import Lattice, Structure

from atomrl.config.crystals import CrystalReward
from atomrl.core.prompts import ungrouped
from atomrl.core.records import RewardTable
from atomrl.domains.crystal_judges import CrystalJudges
from atomrl.measures.physics import HullProvider
from atomrl.measures.relaxed import RelaxedHullProvider
from atomrl.rewards.components import EnergyReward
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.structures.crystals import from_pymatgen, to_crystals
from atomrl.util.errors import UserError

SALT = ROCK_SALT.get_primitive_structure()
SAMPLES = [
    Structure(Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.0003, 0, 0]]),
    rattled(SALT, 0.3),
    SALT,
]
"""Two atoms at one place, salt out of order, salt."""


@pytest.fixture(scope="module")
def scored() -> RewardTable:
    """By CHGNet and the shipped hull, as they are and after eight steps."""
    batch = from_pymatgen(SAMPLES, torch.float32)
    reward = ReinforceReward([EnergyReward(), EnergyReward(relax_steps=8)])
    assert reward.missing_metrics == ("e_above_hull", "e_above_hull_relaxed_8")
    providers = CrystalJudges(CrystalReward(workers=1), small_vae(), "cpu").providers(reward.missing_metrics)
    assert [type(provider) for provider in providers] == [RelaxedHullProvider, HullProvider]
    reward.provide(*providers)
    table = reward.score(batch, ungrouped(batch))
    reward.close()
    return table


def test_a_rattled_crystal_earns_what_it_relaxes_to(scored: RewardTable) -> None:
    before, after = scored.diagnostics["raw_energy"], scored.diagnostics["raw_energy_#2"]
    assert before[1] < after[1] - 0.05
    assert after[1] == pytest.approx(float(after[2]), abs=0.06)  # salt
    assert after[2] >= before[2] - 1e-3
    assert before[0] == after[0] == -1.0  # not sound: nobody relaxes it
    assert scored.diagnostics["e_above_hull_relaxed_8"][1] == pytest.approx(-float(after[1]))
    assert scored.reasons == ("overlap", None, None)


def test_the_relaxed_crystals_are_kept(scored: RewardTable) -> None:
    (relaxed,) = scored.scored_structures.values()
    given, ended = to_crystals(from_pymatgen(SAMPLES)), to_crystals(relaxed)
    np.testing.assert_allclose(ended[0].frac_coords, given[0].frac_coords, atol=1e-6)
    assert not np.allclose(ended[1].frac_coords, given[1].frac_coords, atol=1e-2)
    assert not np.allclose(ended[1].lattice, given[1].lattice, atol=1e-4)
    judges = CrystalJudges(CrystalReward(workers=1), small_vae(), "cpu")
    with judges.physics().force_field as chgnet:
        energies = [result.energy / 2 for result in chgnet.evaluate(relaxed)[1:]]
    above, _ = judges.reference.hull().energy_above_hull([SALT.composition] * 2, energies)
    np.testing.assert_allclose(above, scored.diagnostics["e_above_hull_relaxed_8"][1:], atol=1e-4)
    part = scored[1:]
    assert len(part.scored_structures["e_above_hull_relaxed_8"]) == 2


@pytest.mark.parametrize("steps", [-1, 2.0, True, "many"])
def test_steps_are_a_whole_number(steps: object) -> None:
    with pytest.raises(UserError, match=r"EnergyReward's relax_steps=.*: must be a whole number from 0"):
        EnergyReward(relax_steps=steps)  # type: ignore[arg-type]


def test_a_sample_that_takes_too_long_counts_as_failed() -> None:
    judges = CrystalJudges(CrystalReward(workers=1, relax_seconds=1e-9), small_vae(), "cpu")
    reward = ReinforceReward([EnergyReward(relax_steps=5)], providers=judges.providers(["e_above_hull_relaxed_5"]))
    batch = from_pymatgen([SAMPLES[1]])
    table = reward.score(batch, ungrouped(batch))
    reward.close()
    assert table.reasons == ("slow",)
    assert table.diagnostics["raw_energy"].tolist() == [-1.0]


def test_other_names_are_nobody_s() -> None:
    judges = CrystalJudges(CrystalReward(workers=1), small_vae(), "cpu")
    with pytest.raises(UserError, match="nothing measures the metric e_above_hull_relaxed_x"):
        judges.providers(["e_above_hull_relaxed_x"])
