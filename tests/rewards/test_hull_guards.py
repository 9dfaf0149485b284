"""What the hull knows, and the rewards that say nothing, or no more, where it knows too little."""

import math

import numpy as np
import pytest
import torch
from pymatgen.core import Composition, Lattice, Structure

from atomrl.chemistry import hull as hull_module
from atomrl.chemistry.hull import Hull, HullEntry, HullKey
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.records import ABSTAINED, RewardTable
from atomrl.core.stages import FailedScores, SampleContext
from atomrl.measures.measure import Metric
from atomrl.rewards.check import example_crystals
from atomrl.rewards.components import EnergyReward
from atomrl.rewards.metastability import MetastabilityReward
from atomrl.util.errors import UserError

PHASES = ["Li", "Na", "Cl2", "O2", "NaCl", "Na2Cl2", "Na3Cl", "LiCl", "Li2O", "LiNaCl2", "Na4Cl4"]
"""Three of Na-Cl are the same compound."""


def known(values: list) -> Metric:
    return Metric(torch.tensor(values, dtype=torch.float64), (None,) * len(values))


def crystals(*formulas: str) -> list[Structure]:
    """Crystals of two atoms, whose geometry nobody looks at."""
    return [Structure(Lattice.cubic(4), list(formula), [[0, 0, 0], [0.5, 0.5, 0.5]]) for formula in formulas]


@pytest.fixture(params=[1024, 2])
def hull(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Hull:
    """However many systems are looked at together."""
    monkeypatch.setattr(hull_module, "SYSTEMS_AT_ONCE", request.param)
    energies = [-1.0, -1.0, -2.0, -4.0, -3.5, -3.4, 0.5, -3.6, -4.9, -3.5, -3.3]
    entries = [HullEntry(Composition(name), energy, name) for name, energy in zip(PHASES, energies, strict=True)]
    return Hull(HullKey("model", "none", "1"), entries)


def test_different_compounds_of_a_system_are_counted(hull: Hull) -> None:
    """Na3Cl, which falls apart, counts; Na2Cl2 is NaCl; a system holds those of the systems within it."""
    asked = ["NaCl", "Na7Cl", "LiCl", "NaLi", "NaLiCl", "Na", "LiO", "Li3NaClO"]
    counts = hull.count_compounds([Composition(name) for name in asked])
    assert counts.tolist() == [2, 2, 1, 0, 4, 0, 1, 5]
    assert hull.count_compounds([]).tolist() == []
    unknown = Hull(hull.key, [HullEntry(Composition("Na"), -1.0, "Na"), HullEntry(Composition("NaK"), -2.0, "NaK")])
    assert unknown.count_compounds([Composition("NaK")]).tolist() == [0]  # without K as a pure phase it says nothing


def test_the_energy_reward_says_nothing_of_a_bare_hull() -> None:
    """Neither for nor against, while what failed, or is a copy, keeps the least."""
    metrics = {
        "e_above_hull": known([-1.6, 0.3, -0.1, math.nan, 0.2]),
        "hull_entries": known([0, 2, 3, 0, 0]),
        "unique": known([1, 1, 1, 1, 0]),
    }
    plain = EnergyReward(only=["unique"]).compute([], metrics_obj=metrics)
    assert plain.tolist() == pytest.approx([0, -0.3, 0, -1, -1])  # what nobody knows is worth the most
    component = EnergyReward(only=["unique"], min_entries=3)
    assert component.metrics == ("e_above_hull", "unique", "hull_entries")
    guarded = component.compute([], metrics_obj=metrics)
    assert guarded.reasons == (ABSTAINED, ABSTAINED, None, None, None)
    assert guarded.values.isnan().tolist() == [True, True, False, False, False]
    assert guarded.values[2:].tolist() == pytest.approx([0, -1, -1])
    assert EnergyReward().metrics == ("e_above_hull",)


def test_metastability_says_nothing_of_a_bare_hull() -> None:
    metrics = {
        "e_above_hull": known([-1.6, 0.2, math.nan, 0.0]),
        "hull_entries": known([0, 1, 0, 0]),
        "unique": known([1, 1, 1, 1]),
        "novel": known([1, 1, 1, 0]),
    }
    samples = [crystal for formula in ("NO", "CO", "SO", "CN") for crystal in crystals(formula)]
    assert MetastabilityReward().compute(samples, metrics_obj=metrics).tolist() == pytest.approx(
        [1, math.exp(-1), 0, 0]
    )
    guarded = MetastabilityReward(min_entries=1).compute(samples, metrics_obj=metrics)
    assert guarded.reasons == (ABSTAINED, None, None, None)
    assert math.isnan(guarded.values[0])
    assert guarded.values[1:].tolist() == pytest.approx([math.exp(-1), 0, 0])


def test_who_abstains_is_neither_punished_nor_paid() -> None:
    """Not the worst of its group, as a failed score is; its other channels teach."""
    structures, prompts = example_crystals()
    values = torch.linspace(-1, 0, len(prompts), dtype=torch.float64)
    energy = values.clone()
    energy[[5, 6]] = torch.nan
    reasons = tuple({5: ABSTAINED, 6: "scf"}.get(row) for row in range(len(prompts)))
    table = FailedScores("worst")(
        RewardTable({"energy": energy, "creativity": values}, reasons), SampleContext.of(structures, prompts)
    )
    assert table.channels["energy"].isnan().nonzero().flatten().tolist() == [5]
    assert table.channels["energy"][6] == values[4]  # the worst of its group
    objective = FedGRPO(FedGRPOConfig(channel_weights={"energy": 1.0, "creativity": 1.0}))
    active = torch.ones(len(prompts), dtype=torch.bool)
    found = objective.advantages(table, prompts.group_ids, active)
    assert found.channels["energy"][5] == 0
    assert found.channels["energy"][6] < 0
    assert found.channels["creativity"][5] != 0


@pytest.mark.parametrize(
    ("floor", "expected"),
    [(0.0, [0, 0, 0, -0.3, -1]), (0.2, [0.2, 0.2, 0.05, -0.3, -1]), (None, [1.6, 0.25, 0.05, -0.3, -1])],
)
def test_the_floor_bounds_what_lies_below_the_hull(floor: float | None, expected: list) -> None:
    """Without one, an energy that a force field invented outweighs all else."""
    metrics = {"e_above_hull": known([-1.6, -0.25, -0.05, 0.3, math.nan])}
    np.testing.assert_allclose(EnergyReward(floor=floor).compute([], metrics_obj=metrics), expected)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (EnergyReward, {"floor": -0.1}, "floor must be 0 eV/atom or more below the hull, got -0.1"),
        (EnergyReward, {"floor": "low"}, "floor of EnergyReward must be a finite number, got 'low'"),
        (EnergyReward, {"min_entries": -1}, "min_entries must be a whole number from 0, got -1"),
        (MetastabilityReward, {"min_entries": 1.5}, "min_entries must be a whole number from 0, got 1.5"),
        (MetastabilityReward, {"min_entries": True}, "min_entries must be a whole number from 0, got True"),
        (MetastabilityReward, {"halved_at": 0.0}, "halved_at must be above 0 samples, got 0"),
        (MetastabilityReward, {"halved_at": "2"}, "halved_at of MetastabilityReward must be a finite number, got '2'"),
    ],
)
def test_options_are_checked(kind: type, options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        kind(**options)
    assert "\n" not in str(caught.value)
