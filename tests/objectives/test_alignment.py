"""Force alignment: its value and gradient by hand, whom it leaves out, and that it turns a policy's steps."""

import math
from dataclasses import replace

import pytest
import torch

from atomrl.core.alignment import ForceAlignment, forces_at
from atomrl.core.iteration import IterationConfig, iterate
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import Prompts, RewardTable, Structures
from atomrl.core.rollout import RolloutConfig
from atomrl.core.scoring import Scorer
from atomrl.core.shaping import ShapedRewards
from atomrl.core.update import UpdateConfig
from atomrl.policies.toy import LearnedStdGaussian
from atomrl.util.errors import UserError

OLD = torch.zeros(1, 3, 4, dtype=torch.float64)
ALONG, ACROSS, AGAINST = [1.0, 0, 0], [0, 2.0, 0], [-3.0, 0, 0]


def mean(*shifts: list[float]) -> torch.Tensor:
    """Of one molecule; the fourth feature is no position and moves too."""
    return torch.tensor([[[*shift, 9.0] for shift in shifts]], dtype=torch.float64)


def test_by_hand() -> None:
    """Cosines 1, 0 and -1 with a force along x: on average 1 is missing."""
    forces = torch.tensor([[ALONG, ALONG, ALONG]], dtype=torch.float64)
    found = ForceAlignment(0.5).loss(mean(ALONG, ACROSS, AGAINST), OLD, forces, torch.ones(1, 3))
    assert found.tolist() == [pytest.approx(0.5)]


def test_who_takes_no_part() -> None:
    """A small force, a small shift, padding, a force that is not known: the rest decides, or nobody."""
    alignment, mask = ForceAlignment(1.0, min_force=0.1, min_delta=0.01), torch.ones(1, 3)
    forces = torch.tensor([[ALONG, ALONG, ALONG]], dtype=torch.float64)
    small = forces * torch.tensor([0.05, 1, 1])[None, :, None]
    assert alignment.loss(mean(AGAINST, ACROSS, ALONG), OLD, small, mask).tolist() == [pytest.approx(0.5)]
    assert alignment.loss(mean([-0.005, 0, 0], ACROSS, ALONG), OLD, forces, mask).tolist() == [pytest.approx(0.5)]
    assert alignment.loss(mean(ALONG, ACROSS, AGAINST), OLD, forces, torch.tensor([[1.0, 1, 0]])).tolist() == [0.5]
    unknown = torch.where(torch.tensor([False, False, True])[None, :, None], math.nan, forces)
    assert alignment.loss(mean(ALONG, ACROSS, AGAINST), OLD, unknown, mask).tolist() == [0.5]
    assert alignment.loss(OLD, OLD, forces, mask).tolist() == [0]


def test_the_gradient_is_finite_and_points_along_the_force() -> None:
    """Also where nothing has moved yet, as at the first step of an update."""
    forces = torch.tensor([[ALONG, ALONG, ALONG]], dtype=torch.float64)
    at = mean([0, 0, 0], ACROSS, ALONG).requires_grad_()
    ForceAlignment().loss(at, OLD, forces, torch.ones(1, 3)).sum().backward()
    assert at.grad is not None
    assert bool(at.grad.isfinite().all())
    assert at.grad[0, 0].abs().sum() == 0
    assert at.grad[0, 1, 0] < 0  # a step down the gradient goes along the force
    assert float(at.grad[..., 3].abs().sum()) == 0
    moved = mean([0.1, 0.2, 0.3], ACROSS, AGAINST).requires_grad_()
    torch.autograd.gradcheck(lambda m: ForceAlignment().loss(m, OLD, forces, torch.ones(1, 3)), moved)


class Pushed:
    """Every atom is pushed along x; the score is the same for all, so that alignment alone teaches."""

    scope = "per_sample"

    def __init__(self, forces: bool = True) -> None:
        self.forces = forces

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        push = torch.tensor([1.0, 0, 0], dtype=torch.float64).expand(*structures.numbers.shape, 3)
        channel = structures.positions[:, 0, 1].double()
        return RewardTable({"x": channel}, (None,) * len(structures), fields={"forces": push} if self.forces else {})

    def close(self) -> None:
        pass


def trained(weight: float, forces: bool = True, passes: int = 3) -> tuple[dict, RewardTable]:
    policy = LearnedStdGaussian(torch.zeros(3)).double()
    prompts = PromptPlan(SizeDistribution({3: 1}), groups=2, samples_per_group=8, seed=4).prompts(0)
    alignment = ForceAlignment(weight) if weight else None
    objective = FedGRPO(FedGRPOConfig(channel_weights={"x": 1.0}, alignment=alignment, clip_range=1e-3))
    optimizer = torch.optim.SGD(policy.trainable().parameters(), lr=0.05)
    scorer = Scorer(Pushed(forces), forces_at=(4,) if weight else ())
    sampling = RolloutConfig(6, 16, estimate_at=(2, 4), mean_at=(4,))
    config = IterationConfig(sampling, UpdateConfig(epoch_per_rollout=passes))
    done = iterate(policy, prompts, scorer, [ShapedRewards(6)], objective, optimizer, config)
    scorer.close()
    return dict(done.stats), done.table


def test_it_reaches_the_loss_of_the_places_that_are_aligned() -> None:
    """With several passes the ratios move and are clipped, and so do the means, which then are aligned."""
    with_it, table = trained(5.0)
    without, bare = trained(0.0)
    assert set(table.fields) == {"forces", forces_at(4)}
    assert set(bare.fields) == {"forces"}
    assert with_it["clip_frac"] > 0
    assert with_it["loss"] > without["loss"]


def test_at_the_only_step_of_an_update_no_mean_has_moved() -> None:
    """There the cosine is that of a shift of 0, which has no direction, and the minimum leaves all atoms out."""
    assert trained(5.0, passes=1)[0] == trained(0.0, passes=1)[0]


def test_without_forces_it_is_refused() -> None:
    with pytest.raises(UserError, match="force alignment needs forces"):
        trained(1.0, forces=False)
    assert replace(FedGRPOConfig(), alignment=None).alignment is None
