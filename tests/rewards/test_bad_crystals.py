"""Crystals that are wrong in every way, through the whole reward with its real judges: counted, and left aside."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from crystal_models import small_vae
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, SILICON, rattled
from pymatgen.core import Composition, Lattice, Structure
from staged import after_failures

from atomrl.chemistry.hull import Hull, HullEntry, HullKey
from atomrl.core.objectives.grpo import GRPO, GRPOConfig
from atomrl.core.records import Prompts, Structures
from atomrl.force_fields.chgnet import CHGNetForceField
from atomrl.matching import matcher as matching
from atomrl.matching.amd import AMDDistances
from atomrl.matching.matcher import CrystalMatcher
from atomrl.measures.matching import AMDProvider, MatchingProvider
from atomrl.measures.measure import SoundSamples
from atomrl.measures.physics import HullProvider, vae_feature_provider
from atomrl.rewards.components import (
    CompositionDiversityReward,
    CreativityReward,
    EnergyReward,
    RewardComponent,
    StructureDiversityReward,
)
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.structures.cells import to_arrays
from atomrl.structures.crystals import from_pymatgen
from atomrl.testing import check_reward
from atomrl.training.score_log import summarise
from atomrl.util.errors import UserError
from atomrl.workers.executor import TIMEOUT

REFERENCES = [SILICON, PEROVSKITE, ROCK_SALT]
PHASES = [("Na", -1.31), ("Cl", -1.84), ("NaCl", -3.39), ("Cs", -0.86), ("Si", -5.31), ("Mg", -1.6), ("O", -4.95)]
MAGNESIA = Structure(ROCK_SALT.lattice.scale(75), ["Mg"] * 4 + ["O"] * 4, ROCK_SALT.frac_coords)
COMPONENTS = ("creativity", "energy", "structure_diversity", "composition_diversity")


def alone(symbol: str, length: float) -> Structure:
    return Structure(Lattice.cubic(length), [symbol], [[0, 0, 0]])


def with_cell(structure: Structure, cell: object) -> Structures:
    """A crystal whose cell is replaced, whatever that makes of it."""
    batch = from_pymatgen([structure])
    return Structures(batch.numbers, batch.positions, batch.mask, torch.tensor(np.array(cell))[None].double())


def with_atoms(structure: Structure, number: int, place: float | None = None) -> Structures:
    """A crystal whose first atom is of this kind, and there in Å if a place is given."""
    batch = from_pymatgen([structure])
    numbers, positions = batch.numbers.clone(), batch.positions.clone()
    numbers[0, 0] = number
    if place is not None:
        positions[0, 0] = place
    return Structures(numbers, positions, batch.mask, batch.cell)


CUBE = np.eye(3) * 5.69
NOTHING = Structures(torch.zeros(1, 1).long(), torch.zeros(1, 1, 3).double(), torch.zeros(1, 1) > 0, torch.eye(3)[None])
UNSOUND = {
    "NaN lattice": (with_cell(ROCK_SALT, CUBE * math.nan), "nan"),
    "infinite lattice": (with_cell(ROCK_SALT, np.diag([math.inf, 5, 5])), "nan"),
    "NaN position": (with_atoms(ROCK_SALT, 11, math.nan), "nan"),
    "position far away": (with_atoms(ROCK_SALT, 11, 1e9), "exploded"),
    "no atoms": (NOTHING, "empty"),
    "no element": (with_atoms(ROCK_SALT, 130), "element"),
    "zero cell": (with_cell(ROCK_SALT, CUBE * 0), "length"),
    "tiny cell": (with_cell(ROCK_SALT, CUBE * 1e-3), "length"),
    "huge cell": (with_cell(ROCK_SALT, CUBE * 1e3), "length"),
    "cell beyond squares": (with_cell(ROCK_SALT, CUBE * 1e200), "length"),
    "needle": (with_cell(ROCK_SALT, [[9, 0, 0], [9, 0.9, 0], [0, 0, 9]]), "angle"),
    "flat cell": (with_cell(ROCK_SALT, [[9, 0, 0], [0, 9, 0], [9, 9, 0]]), "volume"),
    "dense cell": (with_cell(ROCK_SALT, CUBE / 2.5), "volume"),
    "overlapping atoms": (with_atoms(ROCK_SALT, 11, 2.845), "overlap"),
    "lonely atom": (from_pymatgen([alone("Si", 7.5)]), "isolated"),
}
"""What is wrong, and the reason that the table must give."""

SOUND = {
    "salt": (from_pymatgen([ROCK_SALT]), None),
    "salt again": (from_pymatgen([rattled(ROCK_SALT, 0.05)]), None),
    "caesium chloride": (from_pymatgen([CAESIUM_CHLORIDE]), None),
    "a single element": (from_pymatgen([SILICON]), None),
    "left-handed cell": (with_cell(CAESIUM_CHLORIDE, np.diag([4.12, 4.12, -4.12])), None),
    "element outside the hull": (from_pymatgen([PEROVSKITE]), "element_outside_hull"),
    "element that CHGNet lacks": (from_pymatgen([alone("Am", 3.5)]), "element"),
    "element that the VAE lacks too": (from_pymatgen([alone("Md", 3.5)]), "nonfinite"),
}


def batch_of(*cases: tuple[Structures, object]) -> tuple[Structures, Prompts]:
    """The cases as one batch in two groups."""
    structures = Structures.concatenate([case[0] for case in cases])
    ids = torch.arange(len(structures))
    return structures, Prompts(0, 0, structures.sizes, ids % 2, ids)


class Counting:
    """A provider that remembers how many crystals it saw."""

    def __init__(self, provider: object) -> None:
        self.names, self.provider, self.seen = provider.names, provider, []

    def measure(self, batch: SoundSamples) -> object:
        self.seen.append(len(batch))
        return self.provider.measure(batch)

    def close(self) -> None:
        self.provider.close()


def reward_of(matcher: CrystalMatcher, *more: RewardComponent) -> tuple[ReinforceReward, list[Counting]]:
    """The reward of the published configuration, with its real judges."""
    force_field = CHGNetForceField(device="cpu")
    key = HullKey(force_field.model_id, force_field.correction, "by hand")
    hull = Hull(key, [HullEntry(Composition(formula), energy, formula) for formula, energy in PHASES])
    torch.manual_seed(0)
    vae = small_vae().eval()
    providers = [
        Counting(provider)
        for provider in (
            MatchingProvider(matcher),
            AMDProvider(AMDDistances([to_arrays(crystal) for crystal in REFERENCES])),
            HullProvider(force_field, hull),
            vae_feature_provider(vae, from_pymatgen(REFERENCES)),
        )
    ]
    components = [CreativityReward(), EnergyReward(), StructureDiversityReward(), CompositionDiversityReward(), *more]
    return ReinforceReward(components, providers=providers), providers


@pytest.fixture(scope="module")
def judged():
    """The reward and what its providers saw; its matcher is shared by the tests of this file."""
    with CrystalMatcher([to_arrays(crystal) for crystal in REFERENCES]) as matcher:
        yield reward_of(matcher)


def test_every_bad_crystal_is_counted(judged):
    reward, providers = judged
    cases = UNSOUND | SOUND
    structures, prompts = batch_of(*cases.values())
    table = reward.score(structures, prompts)
    assert list(zip(cases, table.reasons, strict=True)) == [(name, reason) for name, (_, reason) in cases.items()]
    bad = torch.tensor([name in UNSOUND for name in cases])
    assert {count for provider in providers for count in provider.seen} == {len(SOUND)}
    assert set(table.channels["creativity"][bad].tolist()) == {0.0}
    assert set(table.channels["energy"][bad].tolist()) == {-1.0}
    for name in ("structure_diversity", "composition_diversity"):
        unknown = bad | torch.tensor([name == "element that the VAE lacks too" for name in cases])
        assert torch.equal(table.channels[name].isnan(), unknown)
    counts = Counter(reason for _, reason in cases.values() if reason is not None)
    log = summarise(table)
    assert log["failed"] == counts.total()
    for reason, count in counts.items():
        assert log[f"failed_{reason}"] == count
    for weighed in ("worst", "mask"):
        scores = after_failures(table, prompts.group_ids, weighed, over_batch=True)
        advantages = GRPO(GRPOConfig()).advantages(scores, prompts.group_ids, torch.ones(len(cases), dtype=torch.bool))
        assert advantages.total.isfinite().all()
        assert advantages.total.std() > 0


def test_the_good_ones_do_not_see_them(judged):
    reward, _ = judged
    together = reward.score(*batch_of(*(UNSOUND | SOUND).values()))
    by_themselves = reward.score(*batch_of(*SOUND.values()))
    first = len(UNSOUND)
    for name in COMPONENTS:
        torch.testing.assert_close(together.channels[name][first:], by_themselves.channels[name], equal_nan=True)
    assert together.reasons[first:] == by_themselves.reasons


def test_what_the_good_ones_are_worth(judged):
    reward, _ = judged
    table = reward.score(*batch_of(*SOUND.values()))
    row = {name: index for index, name in enumerate(SOUND)}
    worth = {name: {case: float(values[row[case]]) for case in SOUND} for name, values in table.channels.items()}
    creativity, energy = worth["creativity"], worth["energy"]
    assert creativity["caesium chloride"] == 1
    assert 0 < creativity["salt"] < 1  # known, but the first of its batch: as far as the nearest of its formula
    assert creativity["salt again"] == 0
    assert 0 <= creativity["left-handed cell"] < 1e-6
    # a single element is a crystal like any other, and at its own hull
    assert energy["a single element"] == pytest.approx(0, abs=0.05)
    assert -0.1 < energy["salt"] <= 0
    assert energy["left-handed cell"] == pytest.approx(energy["caesium chloride"], abs=1e-6)
    assert [energy[case] for case, (_, reason) in SOUND.items() if reason is not None] == [-1, -1, -1]
    # without an energy a crystal can still be new
    assert creativity["element that CHGNet lacks"] == 1


def test_nothing_sound_and_too_few(judged):
    reward, providers = judged
    calls = [len(provider.seen) for provider in providers]
    structures, prompts = batch_of(*UNSOUND.values())
    table = reward.score(structures, prompts)
    assert [len(provider.seen) for provider in providers] == calls
    assert table.reasons == tuple(reason for _, reason in UNSOUND.values())
    assert table.channels["structure_diversity"].isnan().all()
    assert set(table.channels["energy"].tolist()) == {-1.0}
    objective = GRPO(GRPOConfig())
    advantages = objective.advantages(table, prompts.group_ids, torch.ones(len(UNSOUND), dtype=torch.bool))
    assert torch.equal(advantages.total, torch.zeros(len(UNSOUND)).double())
    two = reward.score(*batch_of(SOUND["salt"], SOUND["a single element"], UNSOUND["tiny cell"]))
    assert two.reasons == ("too_few_samples", "too_few_samples", "length")
    assert two.channels["energy"].isfinite().all()


def test_promises_hold_on_bad_crystals(judged):
    reward, _ = judged
    check_reward(reward, *batch_of(*(UNSOUND | SOUND).values()))


def test_a_matcher_that_hangs(monkeypatch):
    monkeypatch.setattr(matching, "TASK", "hanging_matcher:run_all")
    crystals = [ROCK_SALT, rattled(CAESIUM_CHLORIDE), MAGNESIA, CAESIUM_CHLORIDE, rattled(MAGNESIA), SILICON]
    with CrystalMatcher([to_arrays(crystal) for crystal in REFERENCES], workers=2, timeout=2.0) as matcher:
        table = reward_of(matcher)[0].score(*batch_of(*((from_pymatgen([crystal]), None) for crystal in crystals)))
    # caesium is never reduced; of two magnesias that are never compared, the first counts as unique
    assert table.reasons == (None, TIMEOUT, None, TIMEOUT, TIMEOUT, None)
    assert table.diagnostics["unique"].tolist() == [1, 0, 1, 0, 0, 1]
    assert table.diagnostics["novel"].tolist() == [0, 1, 1, 1, 1, 0]
    for values in table.channels.values():
        assert values.isfinite().all()
    assert summarise(table)["failed_timeout"] == 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda crystals: torch.zeros(len(crystals) + 1), r"mine: got shape \(9,\) for 8 samples; return"),
        (lambda crystals: torch.full((len(crystals),), math.nan), r"mine: nan for sample 15 \(NaCl\)"),
    ],
)
def test_a_bad_reward_beside_good_ones(judged, answer, words):
    """Rows are counted as the user sees them: sample 15 is the first sound one of the batch."""

    class Mine(RewardComponent):
        def compute(self, gen_structures: list, **kwargs: object) -> torch.Tensor:
            return answer(gen_structures)

    reward = ReinforceReward([EnergyReward(), Mine()], providers=judged[1])
    with pytest.raises(UserError, match=words) as caught:
        reward.score(*batch_of(*(UNSOUND | SOUND).values()))
    assert "\n" not in str(caught.value)


def test_time_is_told_by_part(judged):
    table = judged[0].score(*batch_of(*SOUND.values()))
    metrics = ["metric_unique", "metric_amd_distance", "metric_e_above_hull", "metric_structure_features"]
    assert list(table.seconds) == [
        "cell_checks", "creativity", *metrics[:2], "energy", metrics[2], "structure_diversity", metrics[3],
        "composition_diversity",
    ]  # fmt: skip
    assert all(seconds > 0 for seconds in table.seconds.values())
    assert table.seconds["energy"] > table.seconds["metric_e_above_hull"]
    assert table.seconds["creativity"] > table.seconds["metric_unique"] + table.seconds["metric_amd_distance"]
    assert table[torch.tensor([3, 1])].seconds == table.seconds
    assert summarise(table)["seconds_reward_energy"] == table.seconds["energy"]
