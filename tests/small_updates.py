"""Small policies, rollouts and updates that tests of the invariants share."""

import math
from dataclasses import replace

import torch
from crystal_models import small_policy

from atomrl.core.objectives.awm import AWM
from atomrl.core.objectives.base import Objective
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.objectives.forward_options import AWMOptions, NFTOptions, RejectionOptions
from atomrl.core.objectives.nft import NFT
from atomrl.core.objectives.rejection import Rejection
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import RewardTable, Trajectory
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.core.update import UpdateConfig, update, usable
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.policies.crystal import CrystalPolicy
from atomrl.policies.molecule import MoleculePolicy
from atomrl.rewards.dummy import DummyReward

POLICIES = ("molecule", "crystal")
STEPS = 20
SMALL = EDMConfig(hidden=16, edge_hidden=8, layers=2)
LIMIT = 1e5  # an untrained network lets latents grow to about 100
OBJECTIVE = FedGRPO(FedGRPOConfig(kl_penalty_weight=0.1, step_weighting="balanced"))
NFT_OBJECTIVE = NFT(NFTOptions(times=3, reference_weight=0.1), OBJECTIVE.advantages)
AWM_OBJECTIVE = AWM(AWMOptions(times=3, old_decay_rate=0.2, time_weighting="t"), OBJECTIVE.advantages)
REJECTION_OBJECTIVE = Rejection(RejectionOptions(times=3, kept_fraction=0.5), OBJECTIVE.advantages)
OBJECTIVES = {"fed_grpo": OBJECTIVE, "nft": NFT_OBJECTIVE, "awm": AWM_OBJECTIVE, "rejection": REJECTION_OBJECTIVE}


def policy(dtype: torch.dtype = torch.float64, kind: str = "molecule") -> MoleculePolicy | CrystalPolicy:
    torch.manual_seed(0)
    made = small_policy() if kind == "crystal" else MoleculePolicy(EDMNetwork(SMALL))
    made.to(dtype).keep_reference()
    made.follow(0.0)
    return made


def reduction(model: MoleculePolicy | CrystalPolicy) -> str:
    """Of log-probabilities, as the shipped experiments of each domain have it."""
    return "mean" if isinstance(model, CrystalPolicy) else "sum"


def plan(groups: int = 4) -> PromptPlan:
    return PromptPlan(SizeDistribution({4: 1, 5: 1, 8: 2}), groups, samples_per_group=3, seed=2)


def roll(
    model: MoleculePolicy | CrystalPolicy, micro_batch_size: int = 12, train_steps: int | None = None
) -> Trajectory:
    config = RolloutConfig(STEPS, micro_batch_size, train_steps=train_steps, log_prob_reduction=reduction(model))
    return rollout(model, plan().prompts(0), config)


def kept_steps(objective: Objective) -> int | None:
    """How many transitions a rollout keeps for an objective: all or none."""
    return None if objective.needs_walk else 0


def score(trajectory: Trajectory) -> RewardTable:
    reward = DummyReward()
    return RewardTable.concatenate([reward.score(b.structures, b.prompts) for b in trajectory.buckets])


def failing_score(trajectory: Trajectory) -> RewardTable:
    """The same, but for each fifth sample."""
    table, lost = score(trajectory), trajectory.sample_ids % 5 == 0
    channels = {name: values.masked_fill(lost, math.nan) for name, values in table.channels.items()}
    return replace(table, channels=channels, reasons=tuple("scf" if failed else None for failed in lost.tolist()))


def gradients(
    model: MoleculePolicy | CrystalPolicy,
    trajectory: Trajectory,
    config: UpdateConfig,
    objective: Objective = OBJECTIVE,
) -> dict[str, torch.Tensor]:
    """Gradient of an update, by name, from a step of plain SGD."""
    before = {name: value.detach().clone() for name, value in model.current.named_parameters()}
    optimizer = torch.optim.SGD(model.current.parameters(), lr=1.0)
    config = replace(config, max_grad_norm=1e9, exploded_above=LIMIT)
    update(
        model,
        trajectory,
        objective.advantages(score(trajectory), trajectory.group_ids, usable(trajectory, LIMIT)),
        objective,
        optimizer,
        config,
    )
    return {name: before[name] - value.detach() for name, value in model.current.named_parameters()}


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], tolerance: float) -> None:
    scale = max(float(value.abs().max()) for value in left.values())
    assert scale > 0
    for name, value in left.items():
        assert float((value - right[name]).abs().max()) <= tolerance * scale, name


class Recorder:
    """Stands where the update has an optimizer: keeps the gradient of each step, and moves nothing."""

    def __init__(self, model: MoleculePolicy) -> None:
        self.parameters = dict(model.current.named_parameters())
        self.steps: list[dict[str, torch.Tensor]] = []

    def zero_grad(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def step(self) -> None:
        self.steps.append({name: parameter.grad.clone() for name, parameter in self.parameters.items()})
