"""Shaped rewards: schedules and advantages of the published vectors, sums that telescope, and what a rollout scores."""

import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from atomrl.core.collective import Alone
from atomrl.core.iteration import IterationConfig, iterate
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import Prompts, RewardTable, Structures
from atomrl.core.reward_schedule import RewardScheduler
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.core.scoring import Scorer
from atomrl.core.shaping import ShapedRewards
from atomrl.core.stages import SampleContext
from atomrl.core.update import UpdateConfig
from atomrl.policies.toy import SubspaceGaussian
from atomrl.util.errors import UserError

GOLDEN = json.loads((Path(__file__).parent / "data" / "molecule_rewards.json").read_text())
CASES = GOLDEN["fed_grpo_advantages"]["cases"]
GROUPS = torch.tensor(GOLDEN["fed_grpo_advantages"]["group_index"])


def tensor(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def table(**channels: Tensor) -> RewardTable:
    return RewardTable(channels, (None,) * len(next(iter(channels.values()))))


def shaped(stage: ShapedRewards, finished: RewardTable, potentials: dict[int, RewardTable]) -> RewardTable:
    """The stage on samples of whose structures it asks nothing."""
    rows = len(finished)
    structures = Structures(torch.ones(rows, 1).long(), torch.zeros(rows, 1, 3), torch.ones(rows, 1).bool())
    prompts = Prompts(0, 0, torch.ones(rows).long(), torch.zeros(rows).long(), torch.arange(rows))
    samples = SampleContext(
        prompts, structures, torch.ones(rows).bool(), Alone(), dict.fromkeys(potentials, structures)
    )
    return stage(RewardTable(finished.channels, finished.reasons, potentials), samples)


def by_step(case: dict, rewards: RewardTable) -> tuple[Tensor, Tensor]:
    """Advantages by transition, and the clamped sum."""
    config = FedGRPOConfig(
        channel_weights={"force": case["w_force"], "energy": case["w_energy"]},
        clip_advantage_value=case["clip"],
        terminal_weight=case["terminal_weight"],
    )
    found = FedGRPO(config).advantages(rewards, GROUPS, torch.ones(len(GROUPS), dtype=torch.bool))
    assert found.by_step is not None
    return found.by_step, found.total


@pytest.mark.parametrize("case", GOLDEN["reward_scheduler"])
def test_golden_schedules(case: dict) -> None:
    options = {name: case[name] for name in ("mode", "skip_prefix", "uniform_stride", "include_terminal")}
    found = RewardScheduler(**options, **case["adaptive"]).schedule(case["num_steps"])
    assert [*found.indices] == case["indices"]
    assert [*found.intervals] == case["intervals"]
    assert [*found.fine] == case["fine"]
    assert all(place < case["num_steps"] for place in found.before_end(case["num_steps"]))


@pytest.mark.parametrize("case", [case for case in CASES if case["kind"] == "per_step_split"])
def test_golden_advantages_by_transition(case: dict) -> None:
    channels = {name: tensor(case[f"{name}_rewards_ts"]) for name in ("force", "energy")}
    last = {name: rewards[:, -1] for name, rewards in channels.items()}
    # The published columns have one for the end, which the last transition gets.
    ours = {name: torch.cat([rows[:, :-2], rows[:, -2:].sum(1, keepdim=True)], 1) for name, rows in channels.items()}
    found, total = by_step(case, RewardTable(last, (None,) * len(GROUPS), rewards_ts=ours))
    assert torch.allclose(found, tensor(case["out"]["advantages_ts"]), atol=2e-6)
    assert torch.allclose(total, tensor(case["out"]["advantages"]), atol=4e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case["kind"] == "pbrs_return_to_go"])
def test_golden_returns(case: dict) -> None:
    steps, potentials = case["num_steps"], tensor(case["potentials"])
    finished = table(force=tensor(case["force_rewards"]), energy=tensor(case["energy_rewards"]))
    before = {
        place: table(force=potentials[:, place] + 7, energy=potentials[:, place])
        for place in case["schedule"]
        if place < steps
    }
    stage = ShapedRewards(steps, mode="pbrs_return_to_go", gamma=case["gamma"])
    found, total = by_step(case, shaped(stage, finished, before))
    assert torch.allclose(found, tensor(case["out"]["advantages_ts"]), atol=2e-6)
    assert torch.allclose(total, tensor(case["out"]["advantages"]), atol=4e-6)


@pytest.mark.parametrize("seed", range(40))
def test_differences_telescope_to_the_reward(seed: int) -> None:
    """With gamma = 1: what z0_pred is worth at a scored place, and all that is paid from there on, is the reward."""
    chosen, rng = random.Random(seed), torch.Generator().manual_seed(seed)
    steps, skip, stride = chosen.randint(1, 30), chosen.randint(0, 35), chosen.randint(1, 9)
    schedule = RewardScheduler(
        skip_prefix=skip, uniform_stride=stride, include_terminal=chosen.random() < 0.5
    ).schedule(steps)
    reward, *worth = torch.randn(1 + steps, 4, generator=rng, dtype=torch.float64)
    places = schedule.before_end(steps)
    stage = ShapedRewards(steps, terminal_weight=0.0)
    found = shaped(stage, table(x=reward), {place: table(x=worth[place]) for place in places}).rewards_ts["x"]
    assert found.shape == (4, steps)
    for place in places:
        assert torch.allclose(worth[place] + found[:, place:].sum(1), reward)
    idle = [place for place in range(steps) if place not in places]
    assert float(found[:, idle].abs().sum()) == 0


def test_discounted_differences_and_the_weight_of_the_end() -> None:
    """Places 1 and 3 of a walk of five transitions, by hand."""
    finished = table(force=tensor([10.0]), energy=tensor([-1.0]))
    before = {1: table(force=tensor([2.0]), energy=tensor([0.5])), 3: table(force=tensor([4.0]), energy=tensor([0.0]))}
    stage = ShapedRewards(5, gamma=0.5, terminal_weight=3.0)
    found = shaped(stage, finished, before).rewards_ts
    assert found["force"].tolist() == [[0, 0.25 * 4 - 2, 0, 0.25 * 10 - 4, 3 * 10]]
    assert found["energy"].tolist() == [[0, 0 - 0.5, 0, 0.25 * -1 - 0, 3 * -1]]
    energy_alone = shaped(ShapedRewards(5, only_energy_reshape=True), finished, before).rewards_ts
    assert energy_alone["force"].tolist() == [[0, 0, 0, 0, 10]]
    assert energy_alone["energy"].tolist() == [[0, -0.5, 0, -1, -1]]


def test_a_place_without_a_score_pays_its_transition_nothing() -> None:
    finished = table(energy=tensor([1.0, 2.0, 3.0, 4.0]))
    before = {0: table(energy=tensor([math.nan, 1.0, 2.0, 0.0])), 2: table(energy=tensor([0.0, 1.0, 0.0, 1.0]))}
    rewards = shaped(ShapedRewards(3, mode="pbrs_return_to_go"), finished, before)
    objective = FedGRPO(FedGRPOConfig(channel_weights={"energy": 1.0}))
    active = torch.tensor([True, True, True, False])
    found = objective.advantages(rewards, torch.zeros(4, dtype=torch.int64), active).by_step
    assert found is not None
    assert found[0, 0] == 0
    assert found[:, 1].tolist() == [0, 0, 0, 0]
    assert found[3].tolist() == [0, 0, 0]
    assert bool((found[1:3, 0] == 0).all())  # 1 and 1 of the two that teach
    assert bool((found[:3, 2] != 0).any())


def test_what_cannot_be_shaped_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="shapes the energy, and the reward gives force"):
        shaped(ShapedRewards(3, mode="pbrs_return_to_go"), table(force=tensor([1.0])), {})
    with pytest.raises(UserError, match="one of delta, pbrs_return_to_go"):
        ShapedRewards(3, mode="both")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="strides >= 1"):
        RewardScheduler(uniform_stride=0)
    with pytest.raises(UserError, match="one of uniform, adaptive"):
        RewardScheduler(mode="fast")  # type: ignore[arg-type]
    assert RewardScheduler(skip_prefix=9).schedule(9).indices == (9,)
    assert caplog.text.count("skips all 9 transitions") == 1


@dataclass
class First:
    """The first coordinate of the first atom; what was asked is noted."""

    scope: str = "per_sample"
    lots: list[int] = field(default_factory=list)

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        self.lots.append(len(structures))
        forces = {"forces": structures.positions.double()}
        channel = structures.positions[:, 0, 0].double()
        return RewardTable({"x": channel}, (None,) * len(structures), fields=forces, seconds={"first": 1.0})

    def close(self) -> None:
        pass


@pytest.mark.parametrize("scope", ["per_sample", "per_batch"])
def test_potentials_are_scores_of_what_z0_pred_stands_for(scope: str) -> None:
    prompts = PromptPlan(SizeDistribution({3: 1, 4: 1, 6: 1}), groups=3, samples_per_group=4, seed=2).prompts(0)
    policy, reward = SubspaceGaussian(torch.tensor([0.0, 0, 0, 0.3])), First(scope)
    scorer = Scorer(reward, places_at_once=2)
    trajectory = rollout(policy, prompts, RolloutConfig(8, 8, estimate_at=(0, 3, 7)), scorer.start)
    found = scorer.finish(trajectory, Alone())
    scorer.close()
    assert set(found.potentials) == {0, 3, 7}
    for place, scores in found.potentials.items():
        assert torch.equal(scores.channels["x"], trajectory.estimates[place].positions[:, 0, 0].double())
        assert scores.fields == {}
    assert not torch.allclose(found.potentials[0].channels["x"], found.channels["x"])
    buckets = [len(bucket) for bucket in trajectory.buckets]
    streamed = [size for bucket in buckets for size in (bucket, 2 * bucket, bucket)]
    assert reward.lots == (streamed if scope == "per_sample" else [12] * 4)
    assert found.seconds["potentials"] >= 0
    assert found.seconds["first"] == (len(buckets) if scope == "per_sample" else 1.0)


def test_an_iteration_teaches_each_transition_with_its_own_reward() -> None:
    policy = SubspaceGaussian(torch.tensor([0.0, 0, 0, 0.3])).double()
    prompts = PromptPlan(SizeDistribution({3: 1}), groups=2, samples_per_group=8, seed=4).prompts(0)
    objective = FedGRPO(FedGRPOConfig(channel_weights={"x": 1.0}))
    optimizer = torch.optim.SGD(policy.trainable().parameters(), lr=1e-3)
    scorer, config = Scorer(First()), IterationConfig(RolloutConfig(6, 16, estimate_at=(2, 4)), UpdateConfig())
    done = iterate(policy, prompts, scorer, [ShapedRewards(6)], objective, optimizer, config)
    scorer.close()
    found, paid = done.advantages.by_step, done.table.rewards_ts["x"]
    assert found is not None
    assert found.shape == paid.shape == (16, 6)
    assert (found != 0).any(0).tolist() == [False, False, True, False, True, True]
    assert torch.allclose(done.table.potentials[2].channels["x"] + paid[:, 2:].sum(1), 2 * done.table.channels["x"])
    assert done.stats["grad_norm"] > 0
