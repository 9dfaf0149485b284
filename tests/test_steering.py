"""Steering: what is kept is the best, what is resampled on the way is better than best-of-N, and costs are counted."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from atomrl.core.advantages import Groups
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.protocols import Draw
from atomrl.core.records import Prompts, Structures, Transition
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.core.steering import SteeringConfig, _resampled, steer
from atomrl.policies.toy import LearnedStdGaussian, SubspaceGaussian
from atomrl.util.errors import UserError

GROUPS, EACH, STEPS = 40, 6, 20


def prompts(groups: int = GROUPS, each: int = EACH) -> Prompts:
    return PromptPlan(SizeDistribution({2: 1, 4: 1}), groups, each, seed=3).prompts(0)


def first_atom(structures: Structures, _: Prompts) -> Tensor:
    """Where the first atom is along x, Å."""
    return structures.positions[:, 0, 0].double()


def test_without_places_it_is_best_of_n() -> None:
    """The same walk as a rollout's, and of each group the particle of the highest score."""
    policy = LearnedStdGaussian(torch.zeros(3))
    found = steer(policy, prompts(), SteeringConfig(STEPS, 60, places=0), first_atom)
    plain = rollout(policy, prompts(), RolloutConfig(STEPS, 60, train_steps=0)).structures
    scores = first_atom(plain, prompts()).reshape(GROUPS, EACH)
    assert torch.allclose(found.scores, scores.amax(1), atol=1e-6)
    assert torch.allclose(first_atom(found.structures, prompts()), scores.amax(1), atol=1e-6)
    assert (found.scorings, found.network_calls) == (GROUPS * EACH, GROUPS * EACH * STEPS)


def test_the_call_of_the_decoder_counts() -> None:
    class Decoding(SubspaceGaussian):
        def decode(self, latents: Tensor, mask: Tensor, prompts: Prompts, draw: Draw) -> Structures:
            self.predict(latents, mask, latents.new_zeros(len(latents)), prompts)
            return super().decode(latents, mask, prompts, draw)

    policy = Decoding(torch.zeros(4))
    found = steer(policy, prompts(), SteeringConfig(STEPS, 60, places=0), first_atom)
    assert found.network_calls == GROUPS * EACH * (STEPS + 1)
    assert not policy.trainable()._forward_pre_hooks


@pytest.mark.parametrize("temperature", [0.0, 0.5])
@pytest.mark.parametrize("kind", [SubspaceGaussian, LearnedStdGaussian])
def test_resampling_on_the_way_does_better(kind: type, temperature: float) -> None:
    """The reward is linear in z_0, and z0_pred foretells it. Sizes stay those of the prompts."""
    policy = kind(torch.zeros(4 if kind is SubspaceGaussian else 3))
    chosen = steer(policy, prompts(), SteeringConfig(STEPS, 60, places=0), first_atom)
    steered = steer(policy, prompts(), SteeringConfig(STEPS, 60, 4, temperature), first_atom)
    gain = steered.scores - chosen.scores
    assert float(gain.mean()) > 2 * float(gain.std()) / GROUPS**0.5
    assert torch.equal(steered.structures.sizes, prompts().sizes[::EACH])
    assert steered.scorings == 5 * chosen.scorings


def test_a_walk_without_noise_cannot_be_steered() -> None:
    """As DDIM's with eta 0: what takes another's place would stay its copy."""

    class Silent(LearnedStdGaussian):
        def transitions(self, num_steps: int) -> tuple[Transition, ...]:
            return tuple(replace(transition, trainable=False) for transition in super().transitions(num_steps))

    policy = Silent(torch.zeros(3))
    with pytest.raises(UserError, match=r"without noise .* set model\.eta above 0, or take the best of N"):
        steer(policy, prompts(), SteeringConfig(STEPS, 60, 4), first_atom)
    assert len(steer(policy, prompts(), SteeringConfig(STEPS, 60, places=0), first_atom).scores) == GROUPS


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_a_group_does_not_depend_on_its_neighbours(temperature: float) -> None:
    """Nor on how many groups the sampler sees at once."""
    policy = LearnedStdGaussian(torch.zeros(3))
    whole = steer(policy, prompts(), SteeringConfig(STEPS, 60, 4, temperature), first_atom)
    alone = steer(policy, prompts(), SteeringConfig(STEPS, EACH, 4, temperature), first_atom)
    later = steer(policy, prompts()[EACH * 10 :], SteeringConfig(STEPS, 60, 4, temperature), first_atom)
    assert torch.allclose(alone.structures.positions, whole.structures.positions, atol=1e-5)
    assert torch.allclose(later.structures.positions, whole.structures.positions[10:], atol=1e-5)
    assert (alone.scorings, alone.network_calls) == (whole.scorings, whole.network_calls)


def test_a_particle_is_replaced_by_one_of_its_group_in_proportion() -> None:
    asked = prompts(2, 3)
    groups = Groups.of(asked.group_ids)
    worth = torch.tensor([0.0, 1.0, torch.nan, 5.0, 5.0, 5.0], dtype=torch.float64)
    counts = torch.zeros(6, 6)
    for index in range(2000):
        rows = _resampled(worth, groups, 1.0, asked, index)
        counts[torch.arange(6), rows] += 1
    shares = counts / 2000
    # a score that failed is as the worst of its group: 0, 1, 0 have the standard deviation sqrt(2)/3
    chance = torch.exp(torch.tensor([0.0, 1.0, 0.0]) / (2**0.5 / 3))
    assert torch.allclose(shares[:3, :3], (chance / chance.sum()).expand(3, 3), atol=0.05)
    assert torch.allclose(shares[3:, 3:], torch.full((3, 3), 1 / 3), atol=0.05)
    assert float(shares[:3, 3:].sum() + shares[3:, :3].sum()) == 0
    assert _resampled(worth, groups, 0.0, asked, 0).tolist() == [1, 1, 1, 3, 3, 3]


def test_a_temperature_near_0_lets_the_best_take_all() -> None:
    """As 0 does: exp(score / temperature) would overflow."""
    asked = prompts(2, 3)
    groups = Groups.of(asked.group_ids)
    worth = torch.tensor([0.0, 1.0, torch.nan, -5.0, -6.0, -4.0], dtype=torch.float64)
    for temperature in (0.0, 1e-3, 1e-300):
        assert _resampled(worth, groups, temperature, asked, 0).tolist() == [1, 1, 1, 5, 5, 5]


@pytest.mark.parametrize(
    ("steps", "places", "found"),
    [
        (50, None, {31, 37, 43}),
        (50, 1, {37}),
        (50, 25, {*range(25, 50)}),
        (50, 30, {*range(20, 50)}),  # more than the second half has steps: each of the last 30
        (50, 50, {*range(50)}),
        (50, 0, set()),
        (3, None, {1, 2}),
        (1, None, {0}),
    ],
)
def test_places_are_as_many_as_asked_for(steps: int, places: int | None, found: set[int]) -> None:
    assert SteeringConfig(steps, places=places).at() == found


def test_the_best_of_a_group() -> None:
    groups = Groups.of(torch.tensor([7, 7, 7, 2, 2, 5]))
    worth = torch.tensor([1.0, 3.0, 3.0, torch.nan, -4.0, torch.nan], dtype=torch.float64)
    assert groups.best(worth).tolist() == [4, 5, 1]  # groups in the order of their numbers


@pytest.mark.parametrize(
    "wrong",
    [{"places": -1}, {"places": 51}, {"temperature": -0.1}, {"temperature": torch.nan}, {"temperature": torch.inf}],
)
def test_what_means_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="must be 0 or more"):
        SteeringConfig(**wrong)
