"""Rollout and policy update: the package against `plain_edm`, with the same weights, noise and advantages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from atomrl.advantages import Advantages
from atomrl.diffusion.edm import ReverseKernel, project
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.policies.molecule import MoleculePolicy
from atomrl.prompts import PromptPlan, SizeDistribution
from atomrl.records import Prompts, Trajectory, pad_atoms
from atomrl.rollout import RolloutConfig, draw, rollout
from atomrl.update import UpdateConfig, update
from benchmarks import plain_edm
from benchmarks.plain_edm import PlainEDM
from benchmarks.timing import Ratio, interleaved

GROUPS, SAMPLES = 4, 24
SIZES = {15: 7755, 16: 10536, 17: 12991, 18: 13372, 19: 13886, 20: 9566, 21: 10059, 22: 3325, 23: 4922}
"""QM9's size histogram (training split) without its rare ends: atoms, molecules."""
SEED = 3
"""Draws 17, 19, 20 and 21 atoms: near the histogram's mode, and little padding to save."""


@dataclass(frozen=True)
class Case:
    """One backbone and one set of prompts, ready to be sampled and trained both ways.

    Attributes:
        name: of the backbone, for the table.
        network: the weights that both ways use.
        steps: T, transitions of the walk.
        samples: of each group.
        dtype: of the weights and latents.
    """

    name: str
    network: EDMNetwork
    steps: int
    samples: int = SAMPLES
    dtype: torch.dtype = torch.float32

    @staticmethod
    def random(name: str, config: EDMConfig, steps: int, samples: int = SAMPLES) -> Case:
        """A backbone with random weights whose output is small, as a trained one's is in the middle of the walk."""
        torch.manual_seed(0)
        return Case(name, EDMNetwork(config), steps, samples)

    @cached_property
    def policy(self) -> MoleculePolicy:
        """The package's way."""
        return MoleculePolicy(self.network.to(self.dtype))

    @cached_property
    def plain(self) -> PlainEDM:
        """The plain way."""
        return PlainEDM(self.network.config, self.network.to(self.dtype).state_dict())

    @cached_property
    def prompts(self) -> Prompts:
        """Four groups of different size."""
        prompts = PromptPlan(SizeDistribution(SIZES), GROUPS, self.samples, SEED).prompts(0)
        if len(prompts.sizes.unique()) != GROUPS:
            raise ValueError(f"the benchmark wants groups of different sizes, got {prompts.sizes.unique().tolist()}")
        return prompts

    @cached_property
    def mask(self) -> Tensor:
        """(B, N), every sample padded to the largest."""
        return (torch.arange(int(self.prompts.sizes.max())) < self.prompts.sizes[:, None]).to(self.dtype)

    @cached_property
    def kernels(self) -> list[ReverseKernel]:
        """Reverse kernels of the walk."""
        table, steps = self.network.gamma.gamma, self.network.config.diffusion_steps
        points = [table[round(steps * s / self.steps)] for s in range(self.steps + 1)]
        return [ReverseKernel.between(points[s], points[s + 1]) for s in reversed(range(self.steps))]

    @cached_property
    def noise(self) -> Tensor:
        """The package's draws, in the plain form (T + 1, B, N, D): their cost is not charged to the plain way."""
        features = 3 + self.network.config.features
        purposes = [("prior", 0), *(("step", index) for index in range(self.steps))]
        normals = [draw(self.prompts, purpose, index)(features).to(self.dtype) for purpose, index in purposes]
        return torch.stack([project(normal, self.mask) for normal in normals])

    @cached_property
    def advantages(self) -> Tensor:
        """Some number per sample, (B,)."""
        return torch.randn(len(self.prompts), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def compare(case: Case, turns: int, targets: tuple[float, float] | None) -> list[Ratio]:
    """Time both ways, in turns, and say how far their results are from one another."""
    trajectory, (latents, log_probs) = ours_rollout(case), plain_rollout(case)
    apart = relative(final_latents(trajectory), latents[-1])
    plain, ours = interleaved(lambda: plain_rollout(case), lambda: ours_rollout(case), turns)
    rows = [Ratio(f"rollout, {case.name}", plain, ours, apart)]

    def plain_way() -> dict[str, Tensor]:
        return plain_update(case, latents, log_probs)

    apart = gradient_difference(ours_update(case, trajectory), plain_way())
    plain, ours = interleaved(plain_way, lambda: ours_update(case, trajectory), turns)
    rows.append(Ratio(f"policy update, {case.name}", plain, ours, apart))
    if targets is None:
        return rows
    return [replace(row, target=target) for row, target in zip(rows, targets, strict=True)]


def ours_rollout(case: Case) -> Trajectory:
    """Sample with the package."""
    return rollout(case.policy, case.prompts, RolloutConfig(time_step=case.steps))


def plain_rollout(case: Case) -> tuple[list[Tensor], list[Tensor]]:
    """Sample the plain way: latents and log-probabilities of all steps."""
    return plain_edm.rollout(case.plain, case.kernels, case.noise, case.mask)


def ours_update(case: Case, trajectory: Trajectory) -> dict[str, Tensor]:
    """Gradient of the objective over all steps, by the package's update with a learning rate of 0."""
    optimizer = torch.optim.SGD(case.policy.trainable().parameters(), lr=0.0)
    everything = UpdateConfig(max_grad_norm=float("inf"), exploded_above=float("inf"))
    objective = FedGRPO(FedGRPOConfig())
    rows = torch.argsort(trajectory.sample_ids)
    inverse = torch.argsort(rows)
    ordered = case.advantages[inverse]
    update(case.policy, trajectory, Advantages(ordered, {}), objective, optimizer, everything)
    prefix = "dynamics.egnn."
    return {
        name.removeprefix(prefix): parameter.grad
        for name, parameter in case.network.named_parameters()
        if parameter.grad is not None
    }


def plain_update(case: Case, latents: list[Tensor], log_probs: list[Tensor]) -> dict[str, Tensor]:
    """The same gradient, step after step with ordinary autograd."""
    case.plain.zero_grad()
    clip_range = FedGRPOConfig().clip_range
    advantages = case.advantages.to(case.dtype)
    plain_edm.update(case.plain, case.kernels, latents, log_probs, advantages, case.mask, clip_range)
    return case.plain.gradients()


def final_latents(trajectory: Trajectory) -> Tensor:
    """z_0 of all samples by id, (B, N, D), padded to the largest."""
    widest = max(bucket.mask.shape[1] for bucket in trajectory.buckets)
    last = len(trajectory.walk)
    return torch.cat([pad_atoms(bucket.latents[last], widest) for bucket in trajectory.buckets])[
        torch.argsort(trajectory.sample_ids)
    ]


def relative(first: Tensor, second: Tensor) -> float:
    """max |a - b| / max |b|."""
    return float((first - second).abs().max() / second.abs().max())


def gradient_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Largest difference of two gradients relative to the largest entry."""
    if first.keys() != second.keys():
        raise ValueError(f"gradients of different parameters: {sorted(first.keys() ^ second.keys())[:3]}")
    names = sorted(first)
    return relative(*(torch.cat([part[name].flatten() for name in names]) for part in (first, second)))
