"""The weights of components, by what each objective makes of them: signs, sizes and 0."""

from typing import Any

import pytest
import torch

from atomrl.config import load_config
from atomrl.core.advantages import Groups
from atomrl.core.collective import Alone
from atomrl.core.normalize import group_advantages, normalize
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.records import ABSTAINED, Prompts, Structures
from atomrl.core.stages import FailedScores, SampleContext, Total
from atomrl.domains.crystals import CrystalDomain
from atomrl.rewards.check import example_crystals
from atomrl.rewards.components import CustomReward, RewardComponent, Scores
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.rewards.whole import WholeReward
from atomrl.training.experiment import build_objective
from atomrl.util.errors import UserError

OBJECTIVES = [
    ["train.objective=grpo"],
    ["train.objective=grpo", "train.group_reward_norm=true"],
    ["train.objective=fed_grpo"],
    *[
        [f"train.objective={name}", f"train.advantages={how}"]
        for name in ("nft", "awm", "rejection")
        for how in ("channels", "ranks", "sum")
    ],
]


class ByOrder(RewardComponent):
    """Values by the place in the batch, so that what is learned can be told."""

    def __init__(self, values: list[float], reason: str = ABSTAINED, **options: Any) -> None:
        super().__init__(**options)
        self.values, self.reason = values, reason

    def compute(self, gen_structures: list, **kwargs: object) -> Scores:
        values = torch.tensor(self.values, dtype=torch.float64)
        return Scores(values, tuple(self.reason if bad else None for bad in values.isnan().tolist()))


class Mine(FedGRPO):
    """An objective of somebody's, which compares each channel in its group, as the documentation's does."""

    def __init__(self, channel_weights: dict[str, float]) -> None:
        super().__init__(FedGRPOConfig(channel_weights))


@pytest.fixture
def batch() -> tuple[Structures, Prompts]:
    """Four crystals of one group."""
    structures, prompts = example_crystals()
    return structures[torch.arange(4)], prompts[torch.arange(4)]


def advantages(reward: ReinforceReward, batch: tuple[Structures, Prompts], words: list[str]) -> torch.Tensor:
    """What an objective makes of the reward."""
    config = load_config("experiment/prototypes/rl_dng", [*words, "dataloader.each_prompt_sample=4"])
    objective = build_objective(config, CrystalDomain().channel_weights(config, reward))
    table = FailedScores()(reward.score(*batch), SampleContext.of(*batch))
    prompts = batch[1]
    active = torch.ones(len(prompts), dtype=torch.bool)
    return objective.advantages(table, prompts.group_ids, active, Alone()).total


@pytest.mark.parametrize("words", OBJECTIVES, ids=" ".join)
def test_a_negative_weight_is_a_penalty(batch, words):
    reward = ReinforceReward([ByOrder([0.1, 0.4, 0.2, 0.3], weight=-0.5)])
    assert reward.score(*batch).diagnostics["raw_reward"].tolist() == pytest.approx([-0.05, -0.2, -0.1, -0.15])
    found = advantages(reward, batch, words)
    assert found.argmax() == 0
    assert found.min() == found[1]


@pytest.mark.parametrize("words", OBJECTIVES, ids=" ".join)
def test_a_component_without_weight_neither_teaches_nor_excludes(batch, words):
    watched = ByOrder([1.0, float("nan"), 0.0, 0.5], weight=0.0)
    alone = ReinforceReward([ByOrder([0.1, 0.4, 0.2, 0.3])])
    both = ReinforceReward([ByOrder([0.1, 0.4, 0.2, 0.3]), watched])
    assert torch.equal(advantages(both, batch, words), advantages(alone, batch, words))
    table = both.score(*batch)
    assert table.diagnostics["reward"].tolist() == table.diagnostics["raw_reward"].tolist() == [0.1, 0.4, 0.2, 0.3]


def test_a_weight_counts_once(batch):
    """In the sum that is normalised, or of what each channel is normalised to."""
    first, second = [0.0, 0.1, 0.2, 0.9], [5.0, 3.0, 4.0, 1.0]
    reward = ReinforceReward([ByOrder(first, weight=0.1), ByOrder(second, weight=0.02)])
    raw = reward.score(*batch).diagnostics["raw_reward"]
    assert torch.allclose(advantages(reward, batch, ["train.objective=grpo"]), normalize(raw, "std"))
    known, groups = torch.ones(4, dtype=torch.bool), Groups.of(batch[1].group_ids)
    parts = [group_advantages(torch.tensor(values).double(), known, groups) for values in (first, second)]
    assert torch.allclose(
        advantages(reward, batch, ["train.objective=fed_grpo"]), 0.1 * parts[0] + 0.02 * parts[1], atol=1e-6
    )


def test_an_objective_of_the_users_gets_the_weights(batch):
    reward = ReinforceReward([ByOrder([0.0, 0.1, 0.2, 0.3]), ByOrder([5.0, 3.0, 4.0, 1.0], weight=0.01)])
    own = advantages(reward, batch, [f"train.objective={{_target_: {__name__}.Mine}}"])
    assert torch.equal(own, advantages(reward, batch, ["train.objective=fed_grpo", "train.clip_advantage_value=5"]))
    assert own.argsort().tolist() == [0, 1, 2, 3]


def test_failing_a_penalty_does_not_pay(batch):
    """What it counts as is the worst of the group: the largest value of what is penalised."""
    failed = ByOrder([0.1, 0.4, float("nan"), 0.3], "scf", weight=-1.0)
    found = advantages(ReinforceReward([failed]), batch, ["train.objective=fed_grpo"])
    assert found[2] == found[1] == found.min()


@pytest.mark.parametrize("order", [1, -1])
def test_one_component_abstains_and_another_one_fails(batch, order):
    """On the same sample: the first is left out, and the second is the worst of the group, in any order of them."""
    abstains = ByOrder([1.0, float("nan"), 3.0, 4.0])
    fails = ByOrder([5.0, float("nan"), 7.0, 8.0], "unknown_element")
    names = ["by_order", "by_order_#2"][::order]
    table = ReinforceReward([abstains, fails][::order]).score(*batch)
    found = FailedScores()(table, SampleContext.of(*batch))
    assert found.channels[names[0]][1].isnan()
    assert found.channels[names[1]].tolist() == [5.0, 5.0, 7.0, 8.0]


def test_the_total_is_what_the_objective_sums(batch):
    """By the reward itself, or by the stage where a reward of several parts leaves it to that."""
    parts = [ByOrder([0.1, 0.4, 0.2, 0.3], weight=-0.5), ByOrder([1.0, 0.0, 1.0, 0.0], weight=2.0)]
    whole, part = ReinforceReward(parts), ReinforceReward(parts, totals=False)
    total = Total(part.weights)(part.score(*batch), SampleContext.of(*batch))
    assert torch.equal(total.diagnostics["reward"], whole.score(*batch).diagnostics["reward"])
    assert whole.score(*batch).diagnostics["reward"].tolist() == pytest.approx([1.95, -0.2, 1.9, -0.15])


def test_a_whole_reward_of_the_users_has_no_negative_weights():
    class Own(ReinforceReward):
        @property
        def weights(self) -> dict[str, float]:
            return {"density": -1.0}

    with pytest.raises(UserError, match=r"weight of density is .*more of a channel is always better: let score give"):
        WholeReward(Own([CustomReward(lambda structures: [0.0])]), "mine:Own")


def test_more_of_a_channel_is_better(batch):
    reward = ReinforceReward([ByOrder([0.1, 0.4, 0.2, 0.3], weight=-2.0, normalize_fn="norm")])
    table = reward.score(*batch)
    assert reward.weights == {"by_order": 2.0}
    assert table.channels["by_order"].tolist() == pytest.approx([0, -1, -1 / 3, -2 / 3], abs=1e-3)
    assert table.diagnostics["reward"].tolist() == pytest.approx((2 * table.channels["by_order"]).tolist())
