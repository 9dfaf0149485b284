"""The sum of components: what reaches them, what they return, and what the table says."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from atomrl.core.normalize import normalize
from atomrl.core.records import Prompts, Structures
from atomrl.measures.drawn_before import DrawnBefore
from atomrl.measures.measure import Metric, SoundSamples
from atomrl.rewards.check import example_crystals
from atomrl.rewards.components import CreativityReward, CustomReward, EnergyReward, RewardComponent, Scores
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.structures.crystals import check_cells
from atomrl.testing import check_reward
from atomrl.util.errors import UserError


class Provider:
    """Metrics that are given by the number of atoms or by place; counts its calls."""

    def __init__(self, **functions: object) -> None:
        self.names = tuple(functions)
        self.functions = functions
        self.calls: Counter[str] = Counter()
        self.closed = 0

    def measure(self, batch: SoundSamples) -> dict[str, Metric]:
        self.calls["measure"] += 1
        values = {name: function(batch) for name, function in self.functions.items()}
        return {
            name: Metric(column, tuple("scf" if math.isnan(value) else None for value in column.tolist()))
            for name, column in values.items()
        }

    def close(self) -> None:
        self.closed += 1


def density(structures: list) -> list[float]:
    return [len(crystal) / crystal.volume for crystal in structures]


@pytest.fixture
def batch() -> tuple[Structures, Prompts]:
    return example_crystals()


@pytest.fixture
def degenerate(batch: tuple[Structures, Prompts]) -> tuple[Structures, Prompts]:
    """The third sample has a NaN lattice, the fifth two atoms in one place."""
    structures, prompts = batch
    cell, positions = structures.cell.clone(), structures.positions.clone()
    cell[2] = math.nan
    positions[4, 1] = positions[4, 0]
    return Structures(structures.numbers, positions, structures.mask, cell), prompts


def test_channels_are_normalised_and_the_totals_weigh_them(batch: tuple[Structures, Prompts]) -> None:
    reward = ReinforceReward(
        [CustomReward(density, weight=2.0, normalize_fn="norm"), CustomReward(density, weight=0.5)]
    )
    table = reward.score(*batch)
    raw = batch[0].sizes.double() / torch.linalg.det(batch[0].cell)
    assert torch.allclose(table.diagnostics["raw_density"], raw)
    assert torch.allclose(table.channels["density"], normalize(raw, "norm"))
    assert torch.allclose(table.channels["density_#2"], raw)
    assert torch.allclose(table.diagnostics["reward"], 2 * normalize(raw, "norm") + 0.5 * raw)
    assert torch.allclose(table.diagnostics["raw_reward"], 2.5 * raw)
    assert reward.weights == {"density": 2.0, "density_#2": 0.5}
    assert set(table.reasons) == {None}
    check_reward(reward, *batch)


def test_metrics_are_computed_once_and_shared(batch: tuple[Structures, Prompts]) -> None:
    provider = Provider(e_above_hull=lambda samples: torch.linspace(0, 0.3, len(samples), dtype=torch.float64))
    reward = ReinforceReward([EnergyReward(), EnergyReward(weight=2.0)], providers=[provider])
    table = reward.score(*batch)
    assert provider.calls["measure"] == 1
    assert torch.allclose(table.diagnostics["e_above_hull"], torch.linspace(0, 0.3, 16, dtype=torch.float64))
    reward.close()
    assert provider.closed == 1


def test_unsound_cells_reach_nothing(degenerate: tuple[Structures, Prompts]) -> None:
    seen = []

    class Seen(RewardComponent):
        def compute(self, gen_structures: list, **kwargs: object) -> torch.Tensor:
            seen.append((len(gen_structures), len(kwargs["batch_gen"])))
            assert all(math.isfinite(crystal.volume) for crystal in gen_structures)
            return torch.arange(len(gen_structures))

    provider = Provider(e_above_hull=lambda samples: torch.full((len(samples),), 0.1, dtype=torch.float64))
    reward = ReinforceReward([Seen(normalize_fn="norm"), EnergyReward()], providers=[provider])
    table = reward.score(*degenerate)
    assert seen == [(14, 14)]
    assert (table.reasons[2], table.reasons[4]) == ("nan", "overlap")
    assert table.channels["seen"].isnan().nonzero()[:, 0].tolist() == [2, 4]
    assert table.channels["energy"][[2, 4]].tolist() == [-1, -1]
    assert table.channels["energy"][3] == pytest.approx(-0.1)
    check_reward(reward, *degenerate)


def test_what_was_scored_is_not_checked_again(degenerate: tuple[Structures, Prompts]) -> None:
    """Cells are checked once, also where a validation is scored before the samples are remembered; others are."""
    structures, prompts = degenerate
    seen, memory = [], DrawnBefore()

    def check(cells: Structures) -> list[str | None]:
        seen.append(cells)
        return check_cells(cells)

    reward = ReinforceReward([CustomReward(density)], providers=[memory], check=check)
    validation = replace(structures, positions=structures.positions + 0.01)
    reward.score(structures, prompts)
    reward.score(validation, prompts)
    reward.remember(replace(structures, positions=structures.positions.clone()))
    assert len(seen) == 2
    assert sum(memory.memory().values()) == len(structures) - 2
    reward.remember(replace(structures, positions=structures.positions + 0.02))
    assert len(seen) == 3


def test_a_batch_of_nothing_sound(batch: tuple[Structures, Prompts]) -> None:
    structures, prompts = batch
    broken = Structures(structures.numbers, structures.positions, structures.mask, structures.cell * math.nan)
    table = ReinforceReward([CustomReward(density, normalize_fn="std")]).score(broken, prompts)
    assert table.channels["density"].isnan().all()
    assert set(table.reasons) == {"nan"}


def test_failed_metrics_are_explained(batch: tuple[Structures, Prompts]) -> None:
    provider = Provider(
        e_above_hull=lambda samples: torch.tensor([math.nan] + [0.2] * (len(samples) - 1), dtype=torch.float64)
    )
    table = ReinforceReward([EnergyReward()], providers=[provider]).score(*batch)
    assert table.reasons[:2] == ("scf", None)
    assert table.channels["energy"][:2].tolist() == pytest.approx([-1, -0.2])


def test_samples_come_in_the_order_of_their_ids(batch: tuple[Structures, Prompts]) -> None:
    structures, prompts = batch
    provider = Provider(
        unique=lambda samples: (torch.arange(len(samples)) == 0).double(),
        novel=lambda samples: (torch.arange(len(samples)) == 0).double(),
        amd_distance=lambda samples: torch.zeros(len(samples), dtype=torch.float64),
    )
    reward = ReinforceReward([CreativityReward()], providers=[provider])
    rows = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(0))
    table, turned = reward.score(structures, prompts), reward.score(structures[rows], prompts[rows])
    assert torch.equal(turned.channels["creativity"], table.channels["creativity"][rows])
    assert table.channels["creativity"].tolist() == [1] + [0] * 15


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (torch.zeros(3), r"mine: got shape \(3,\)"),
        (torch.zeros(16, 1), r"mine: got shape \(16, 1\)"),
        (torch.tensor([1.0] * 5 + [math.nan] + [1.0] * 10), r"mine: nan for sample 105 \(MgO\)"),
        (torch.tensor([1.0] * 5 + [math.inf] + [1.0] * 10), r"mine: inf for sample 105 \(MgO\)"),
        (None, "mine: got None, as from a function without `return`"),
        ("high", "mine: got str, which is not an array"),
    ],
)
def test_one_line_names_component_and_sample(batch: tuple[Structures, Prompts], answer: object, words: str) -> None:
    class Mine(RewardComponent):
        def compute(self, gen_structures: list, **kwargs: object) -> object:
            return answer

    structures, prompts = batch
    named = Prompts(0, 0, prompts.sizes, prompts.group_ids, prompts.sample_ids + 100)
    with pytest.raises(UserError, match=words) as caught:
        ReinforceReward([Mine()]).score(structures, named)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        (1e140, {"weight": 1e200}, r"1e\+140 to 1.5.*e\+141, are too large for normalize_fn=None and weight=1e\+200"),
        (1e300, {"normalize_fn": "std"}, ".*, are too large for normalize_fn=std"),
        (1e306, {"normalize_fn": "norm"}, ".*, are too large for normalize_fn=norm"),
    ],
)
def test_what_overflows_when_it_is_scaled(
    batch: tuple[Structures, Prompts], size: float, options: dict, words: str
) -> None:
    class Huge(RewardComponent):
        def compute(self, gen_structures: list, **kwargs: object) -> torch.Tensor:
            return size * torch.arange(len(gen_structures), dtype=torch.float64).clamp(min=1)

    with pytest.raises(UserError, match=f"reward component huge: its values, {words}"):
        ReinforceReward([Huge(**options)]).score(*batch)


@pytest.mark.parametrize(
    "change",
    [
        lambda crystals, tensors: tensors.positions.add_(1.0),
        lambda crystals, tensors: tensors.cell.mul_(2.0),
        lambda crystals, tensors: crystals[3].scale_lattice(1.0),
        lambda crystals, tensors: crystals[0].replace_species({"Na": "K"}),
    ],
)
def test_a_component_must_not_change_the_samples(batch: tuple[Structures, Prompts], change: object) -> None:
    class Rough(RewardComponent):
        def compute(self, gen_structures: list, **kwargs: object) -> list:
            change(gen_structures, kwargs["batch_gen"])
            return density(gen_structures)

    with pytest.raises(UserError, match=r"rough changes gen_structures or batch_gen.*copies"):
        ReinforceReward([Rough()]).score(*batch)


def test_a_component_without_its_weight() -> None:
    class Headless(RewardComponent):
        def __init__(self) -> None:
            self.scale_by = 2.0

        def compute(self, gen_structures: list, **kwargs: object) -> list:
            return density(gen_structures)

    with pytest.raises(UserError, match=r"Headless has no weight, .*super\(\).__init__\(\*\*options\)"):
        ReinforceReward([Headless()])


def test_nan_with_a_reason_is_fine(batch: tuple[Structures, Prompts]) -> None:
    class Mine(RewardComponent):
        def compute(self, gen_structures: list, **kwargs: object) -> Scores:
            values = torch.tensor([math.nan] + [1.0] * (len(gen_structures) - 1))
            return Scores(values, ("no_gap",) + (None,) * (len(gen_structures) - 1))

    table = ReinforceReward([Mine()]).score(*batch)
    assert table.reasons[0] == "no_gap"
    assert table.channels["mine"].isnan().tolist() == [True] + [False] * 15


def test_a_number_with_a_reason_is_no_score(batch: tuple[Structures, Prompts]) -> None:
    """It was paid, and counted as failed."""

    class Mine(RewardComponent):
        def compute(self, gen_structures: list, **kwargs: object) -> Scores:
            return Scores(torch.ones(len(gen_structures)), ("no_gap",) + (None,) * (len(gen_structures) - 1))

    table = ReinforceReward([Mine()]).score(*batch)
    assert table.channels["mine"].isnan().tolist() == [reason == "no_gap" for reason in table.reasons]
    assert table.channels["mine"].isnan().sum() == 1


def test_a_metric_that_nobody_provides(batch: tuple[Structures, Prompts]) -> None:
    reward = ReinforceReward([CustomReward(density), EnergyReward()])
    assert reward.missing_metrics == ("e_above_hull",)
    with pytest.raises(UserError, match="e_above_hull, which energy reads"):
        reward.score(*batch)
    with pytest.raises(UserError, match="no components"):
        ReinforceReward([])


def test_documented_normalize() -> None:
    rewards = torch.tensor([1.0, 2.0, 3.0, 7.0], dtype=torch.float64)
    reward = ReinforceReward([EnergyReward()], normalize_fn="std")
    assert torch.allclose(reward.normalize(rewards), normalize(rewards, "std"))
    grouped = reward.normalize(rewards, torch.tensor([0, 0, 1, 1]))
    assert torch.allclose(grouped[:2], normalize(rewards[:2], "std"))


def test_the_raw_total_can_be_compared_between_batches(batch: tuple[Structures, Prompts]) -> None:
    levels = iter((0.0, 3.0))

    def shifted(structures: list) -> list[float]:
        level = next(levels)
        return [level + value for value in density(structures)]

    reward = ReinforceReward([CustomReward(shifted, weight=2.0, normalize_fn="std"), CustomReward(density)])
    means = []
    for _ in range(2):
        diagnostics = reward.score(*batch).diagnostics
        raw = 2 * diagnostics["raw_shifted"] + diagnostics["raw_density"]
        assert torch.allclose(diagnostics["raw_reward"], raw)
        means.append({name: float(diagnostics[name].mean()) for name in ("raw_reward", "reward")})
    assert means[1]["raw_reward"] == pytest.approx(means[0]["raw_reward"] + 6.0)
    assert means[1]["reward"] == pytest.approx(means[0]["reward"])


def test_a_sample_without_a_value_counts_as_the_worst_in_the_raw_total(
    degenerate: tuple[Structures, Prompts],
) -> None:
    reward = ReinforceReward([CustomReward(lambda structures: [-value for value in density(structures)], weight=2.0)])
    table = reward.score(*degenerate)
    [raw] = [values for name, values in table.diagnostics.items() if name not in ("reward", "raw_reward")]
    known = raw[raw.isfinite()]
    assert len(known) == len(raw) - 2
    total = table.diagnostics["raw_reward"]
    assert torch.equal(total[raw.isfinite()], 2 * known)
    assert total[raw.isnan()].tolist() == [2 * float(known.min())] * 2


def test_a_component_called_reward_does_not_take_the_place_of_the_total(batch: tuple[Structures, Prompts]) -> None:
    def reward(structures: list) -> list[float]:
        return density(structures)

    table = ReinforceReward([CustomReward(reward, weight=3.0)]).score(*batch)
    assert table.channels.keys() == {"reward_#2"}
    assert torch.allclose(table.diagnostics["raw_reward"], 3 * table.diagnostics["raw_reward_#2"])
