"""Components multiplied, compounds alone rewarded, and formulas that the run has drawn before."""

import math

import pytest
import torch

from atomrl.core.records import Prompts, Structures
from atomrl.measures.drawn_before import DrawnBefore
from atomrl.measures.measure import Metric, SoundSamples
from atomrl.rewards.check import example_crystals
from atomrl.rewards.components import CreativityReward, CustomReward, EnergyReward, RewardComponent, Scores
from atomrl.rewards.fresh_formula import FreshFormulaReward
from atomrl.rewards.metastability import MetastabilityReward
from atomrl.rewards.novelty import NoveltyReward
from atomrl.rewards.pure_elements import check_compounds
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.testing import check_reward
from atomrl.util.errors import UserError


class Given:
    """Metrics with the same values each time, for as many samples as there are."""

    def __init__(self, **values: list[float]) -> None:
        self.values, self.names = values, tuple(values)

    def measure(self, batch: SoundSamples) -> dict[str, Metric]:
        return {
            name: Metric(torch.tensor(column[: len(batch)], dtype=torch.float64), (None,) * len(batch))
            for name, column in self.values.items()
        }

    def close(self) -> None:
        """Nothing to give back."""


class Missing(RewardComponent):
    """Has no value for the second sample."""

    def compute(self, gen_structures: list, **kwargs: object) -> Scores:
        values = torch.full((len(gen_structures),), 0.5)
        values[1] = torch.nan
        return Scores(values, tuple("no_gap" if row == 1 else None for row in range(len(values))))


@pytest.fixture
def batch() -> tuple[Structures, Prompts]:
    return example_crystals()


def half_of_them(first: float, second: float) -> list[float]:
    return [first, second] * 8


def test_a_sum_pays_for_two_halves_and_a_product_for_the_whole(batch: tuple[Structures, Prompts]) -> None:
    """In turn: one that is known and stable, one that is new and falls apart, two that are new and between."""
    energies = [0.0, 1.0, 0.1, 0.5] * 4
    fresh = [0.0, 1.0, 1.0, 1.0] * 4
    provider = Given(e_above_hull=energies, unique=[1.0] * 16, novel=fresh, amd_distance=[0.0] * 16)
    components = [CreativityReward(weight=1.0), EnergyReward(weight=2.0, normalize_fn="norm")]
    summed = ReinforceReward(components, providers=[provider]).score(*batch)
    product = ReinforceReward(components, providers=[provider], combine="product")
    table = product.score(*batch)
    assert table.channels.keys() == {"product"}
    assert product.weights == {"product": 1.0}
    scaled = [(1 - energy) / (1 + 1e-4) for energy in energies]
    expected = [new * low**2 for new, low in zip(fresh, scaled, strict=True)]
    assert table.channels["product"].tolist() == pytest.approx(expected)
    assert summed.diagnostics["reward"][0] > 1.9  # the known one
    assert summed.diagnostics["reward"][1] == 1  # the new one
    assert table.channels["product"][:2].tolist() == [0, 0]
    assert torch.equal(table.diagnostics["reward"], table.channels["product"])
    assert torch.equal(table.diagnostics["raw_reward"], summed.diagnostics["raw_reward"])
    assert {"raw_creativity", "raw_energy"} <= table.diagnostics.keys()
    check_reward(product, *batch)


def test_the_raw_reward_of_a_product_is_what_is_learned(batch: tuple[Structures, Prompts]) -> None:
    """Where no component is normalised over the batch; one that is would have the same mean in each iteration."""
    provider = Given(
        e_above_hull=half_of_them(0.0, 0.2), unique=[1.0] * 16, novel=[1.0] * 16, drawn_before=half_of_them(1.0, 0.0)
    )
    factors = [MetastabilityReward(), FreshFormulaReward(weight=2.0)]
    table = ReinforceReward(factors, providers=[provider], combine="product").score(*batch)
    assert table.diagnostics["raw_reward"].tolist() == pytest.approx(half_of_them(0.25, math.exp(-1)))
    assert torch.equal(table.diagnostics["raw_reward"], table.channels["product"])
    further = [*factors, EnergyReward(weight=0.5, normalize_fn="norm"), Missing()]
    diagnostics = ReinforceReward(further, providers=[provider], combine="product").score(*batch).diagnostics
    low = 0.5 * math.exp(-1) - 0.1
    assert diagnostics["raw_reward"].tolist() == pytest.approx(half_of_them(0.125, low))
    assert diagnostics["reward"].isnan().nonzero().flatten().tolist() == [1]


def test_where_a_failed_component_goes(batch: tuple[Structures, Prompts]) -> None:
    """NaN, with its reason: `train.failed` decides. An unsound cell is worth what its components say."""
    structures, prompts = batch
    cell = structures.cell.clone()
    cell[2] = math.nan
    broken = Structures(structures.numbers, structures.positions, structures.mask, cell)
    provider = Given(unique=[1.0] * 16, novel=[1.0] * 16, amd_distance=[0.0] * 16)
    components = [CreativityReward(), Missing()]
    table = ReinforceReward(components, providers=[provider], combine="product").score(broken, prompts)
    assert table.channels["product"].isnan().nonzero().flatten().tolist() == [1, 2]
    assert table.reasons[1:3] == ("no_gap", "nan")
    alone = ReinforceReward([CreativityReward()], providers=[provider], combine="product").score(broken, prompts)
    assert alone.channels["product"].tolist() == [1, 1, 0] + [1] * 13


def test_one_of_weight_0_is_logged_and_has_no_part_in_the_product(batch: tuple[Structures, Prompts]) -> None:
    """Not even by a value that is missing, withheld or negative."""
    provider = Given(e_above_hull=[0.3] * 16, unique=[1.0] * 16, novel=[1.0] * 16, hull_entries=[0.0] * 16)
    components = [
        NoveltyReward(),
        Missing(weight=0.0),
        EnergyReward(weight=0.0, normalize_fn="std"),
        MetastabilityReward(weight=0.0, min_entries=1),
    ]
    table = ReinforceReward(components, providers=[provider], combine="product").score(*batch)
    assert table.channels["product"].tolist() == [1] * 16
    assert not table.left_out("product").any()
    assert table.diagnostics["raw_energy"].tolist() == [-0.3] * 16
    assert table.diagnostics["raw_missing"][1].isnan()
    assert table.diagnostics["raw_reward"].tolist() == [1] * 16


def test_a_component_without_spread_decides_nothing(batch: tuple[Structures, Prompts]) -> None:
    provider = Given(e_above_hull=[0.3] * 16, unique=half_of_them(1, 0), novel=[1.0] * 16, amd_distance=[0.0] * 16)
    components = [EnergyReward(normalize_fn="norm"), CreativityReward()]
    table = ReinforceReward(components, providers=[provider], combine="product").score(*batch)
    assert table.channels["product"].tolist() == half_of_them(1, 0)


@pytest.mark.parametrize(
    ("component", "words"),
    [
        (
            EnergyReward(normalize_fn="std"),
            "normalize_fn=std of energy makes negative ones: give it normalize_fn: norm",
        ),
        (EnergyReward(normalize_fn="subtract_mean"), "normalize_fn=subtract_mean of energy makes negative ones"),
        (EnergyReward(normalize_fn="clip"), "normalize_fn=clip of energy makes negative ones"),
        (EnergyReward(weight=-1.0), "to the power of its weight, -1.0: must be 0 or more"),
    ],
)
def test_what_cannot_be_multiplied_is_refused(component: RewardComponent, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        ReinforceReward([component], combine="product")
    assert "\n" not in str(caught.value)


def test_negative_values_show_when_they_come(batch: tuple[Structures, Prompts]) -> None:
    provider = Given(e_above_hull=[0.3] * 16)
    with pytest.raises(UserError, match=r"component energy: -0.3, and combine=product multiplies values from 0 up"):
        ReinforceReward([EnergyReward()], providers=[provider], combine="product").score(*batch)
    huge = CustomReward(lambda structures: [1e149] * len(structures), weight=3.0)
    with pytest.raises(UserError, match=r"the product of .* is too large"):
        ReinforceReward([huge], combine="product").score(*batch)
    with pytest.raises(UserError, match="combine is one of sum, product; got 'mean'"):
        ReinforceReward([EnergyReward()], combine="mean")
    bounded = EnergyReward(normalize_fn="clip", clip_range=(0.0, 1.0))
    table = ReinforceReward([bounded], providers=[provider], combine="product").score(*batch)
    assert table.channels["product"].tolist() == [0] * 16


def test_pure_elements_earn_nothing(batch: tuple[Structures, Prompts]) -> None:
    """At the hull by definition, and so the best that energy alone can pay; guarded, as bad as no crystal."""
    structures, prompts = batch
    numbers = structures.numbers.clone()
    numbers[3][structures.mask[3]] = 11
    pure = Structures(numbers, structures.positions, structures.mask, structures.cell)
    provider = Given(e_above_hull=[0.2, 0.2, 0.2, 0.0] + [0.2] * 12)
    plain = ReinforceReward([EnergyReward()], providers=[provider]).score(pure, prompts)
    assert plain.channels["energy"].argmax() == 3
    assert plain.reasons[3] is None
    seen = []
    counted = CustomReward(lambda crystals: seen.append(len(crystals)) or [1.0] * len(crystals))
    guarded = ReinforceReward([EnergyReward(), counted], providers=[provider], check=check_compounds)
    table = guarded.score(pure, prompts)
    assert seen == [15]
    assert table.channels["energy"][3] == -1
    assert table.reasons[3] == "pure_element"
    assert set(table.reasons) == {None, "pure_element"}
    broken = Structures(numbers, structures.positions, structures.mask, structures.cell * math.nan)
    assert set(check_compounds(broken)) == {"nan"}


def test_formulas_that_were_drawn_before_earn_less(batch: tuple[Structures, Prompts]) -> None:
    """Scoring remembers nothing by itself; four samples of each of four formulas an iteration."""
    structures, prompts = batch
    reward = ReinforceReward([FreshFormulaReward(halved_at=2.0)], providers=[DrawnBefore()])
    for _ in range(2):
        assert reward.score(structures, prompts).diagnostics["raw_fresh_formula"].tolist() == [1] * 16
    reward.remember(structures[:6])  # four of NaCl, two of MgO
    table = reward.score(structures, prompts)
    worth = [1 / 3] * 4 + [1 / 2] * 4 + [1] * 8
    assert table.channels["fresh_formula"].tolist() == pytest.approx(worth)
    assert table.diagnostics["drawn_before"].tolist() == [4] * 4 + [2] * 4 + [0] * 8
    memory = reward.memory()
    assert memory == {"drawn_before": {"NaCl": 4, "MgO": 2}}
    other = ReinforceReward([FreshFormulaReward(halved_at=2.0)], providers=[DrawnBefore()])
    other.recall(memory)
    assert torch.equal(other.score(structures, prompts).channels["fresh_formula"], table.channels["fresh_formula"])
    other.recall({})
    assert other.memory() == {"drawn_before": {}}


def test_only_sound_cells_are_remembered(batch: tuple[Structures, Prompts]) -> None:
    structures, _ = batch
    cell = structures.cell.clone()
    cell[1:] = math.nan
    reward = ReinforceReward([FreshFormulaReward()], providers=[DrawnBefore()])
    reward.remember(Structures(structures.numbers, structures.positions, structures.mask, cell))
    assert reward.memory() == {"drawn_before": {"NaCl": 1}}
    ReinforceReward([EnergyReward()]).remember(structures)  # nobody remembers


def test_metastability_is_discounted_too(batch: tuple[Structures, Prompts]) -> None:
    structures, prompts = batch
    given = Given(e_above_hull=[0.0] * 16, unique=[1.0] * 16, novel=[1.0] * 16)
    memory = DrawnBefore()
    component = MetastabilityReward(halved_at=4.0)
    assert "drawn_before" in component.metrics
    assert MetastabilityReward().metrics == ("unique", "novel", "e_above_hull")
    reward = ReinforceReward([component], providers=[given, memory])
    reward.remember(structures)
    assert reward.score(structures, prompts).channels["metastability"].tolist() == [0.5] * 16
    with pytest.raises(UserError, match="halved_at must be above 0 samples, got -1"):
        FreshFormulaReward(halved_at=-1)
