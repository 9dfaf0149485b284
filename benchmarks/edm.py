"""Rollout and policy update: the package against `plain_edm`, with the same weights, noise and advantages."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from atomrl.core.advantages import Advantages
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import Prompts, Trajectory, pad_atoms
from atomrl.core.rollout import RolloutConfig, draw, rollout
from atomrl.core.update import UpdateConfig, update
from atomrl.diffusion.edm import ReverseKernel, project
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.policies.molecule import MoleculePolicy
from benchmarks import plain_edm
from benchmarks.plain_edm import PlainEDM
from benchmarks.timing import Ratio, interleaved

GROUPS, SAMPLES = 4, 24
CHECKED_SAMPLES, CHECKED_STEPS = 2, 10
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
        """A backbone with random weights."""
        torch.manual_seed(0)
        return Case(name, EDMNetwork(config), steps, samples)

    @property
    def device(self) -> torch.device:
        """Where the weights are, and so all that is computed."""
        return next(self.network.parameters()).device

    @cached_property
    def policy(self) -> MoleculePolicy:
        """The package's way."""
        return MoleculePolicy(self.network)

    @cached_property
    def plain(self) -> PlainEDM:
        """The plain way."""
        return PlainEDM(self.network.config, self.network.state_dict()).to(self.device)

    @cached_property
    def prompts(self) -> Prompts:
        """Four groups of different size."""
        prompts = PromptPlan(SizeDistribution(SIZES), GROUPS, self.samples, SEED).prompts(0)
        if len(prompts.sizes.unique()) != GROUPS:
            raise ValueError(f"the benchmark wants groups of different sizes, got {prompts.sizes.unique().tolist()}")
        return prompts.to(self.device)

    @cached_property
    def mask(self) -> Tensor:
        """(B, N), every sample padded to the largest."""
        atoms = torch.arange(int(self.prompts.sizes.max()), device=self.device)
        return (atoms < self.prompts.sizes[:, None]).to(self.dtype)

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
        prior = draw(self.prompts, "prior")(features).to(self.dtype)
        steps = [draw(self.prompts, "step", index, dtype=self.dtype)(features) for index in range(self.steps)]
        return torch.stack([project(normals, self.mask) for normals in (prior, *steps)])

    @cached_property
    def advantages(self) -> Tensor:
        """Some number per sample, (B,)."""
        numbers = torch.randn(len(self.prompts), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return numbers.to(self.device)


def compare(case: Case, turns: int, clock: str, targets: tuple[float | None, float | None]) -> list[Ratio]:
    """Time both ways, in turns, and say how far their results are from one another."""
    trajectory = ours_rollout(case)
    step = one_step_difference(case, trajectory)
    whole = whole_differences(replace(case, samples=CHECKED_SAMPLES, steps=min(case.steps, CHECKED_STEPS)))
    rows = []
    for k, (name, plain, ours) in enumerate(
        (
            ("rollout", lambda: plain_rollout(case), lambda: ours_rollout(case)),
            ("policy update", lambda: plain_update(case, trajectory), lambda: ours_update(case, trajectory)),
        )
    ):
        seconds = interleaved(plain, ours, turns, clock)
        agreement = f"{step:.0e} per step; {whole[k]:.0e} in all, float64"
        rows.append(Ratio(f"{name}, {case.name}, T={case.steps}", *seconds, targets[k], agreement))
    return rows


@torch.no_grad()
def one_step_difference(case: Case, trajectory: Trajectory) -> float:
    """Largest relative difference of a step's mean on the same latents, over the first, middle and last step."""
    largest = 0.0
    for place in {0, case.steps // 2, case.steps - 1}:
        plain = plain_edm.plain_mean(
            case.plain, case.kernels[place], by_id(trajectory, place), (case.steps - place) / case.steps, case.mask
        )
        for bucket in trajectory.buckets:
            ours = case.policy.step(bucket.latents[place], bucket.mask, trajectory.walk[place], bucket.prompts).mean
            rows = torch.searchsorted(case.prompts.sample_ids, bucket.prompts.sample_ids)
            largest = max(largest, relative(ours, plain[rows, : ours.shape[1]]))
    return largest


def whole_differences(case: Case) -> tuple[float, float]:
    """Relative differences of the samples and of the gradient over all steps.

    In float64: the published weighting divides rounding errors of the mean by the std of the last, nearly noiseless
    steps, and a walk multiplies them, so that float32 would show the rounding and not the agreement.
    """
    exact = replace(case, network=copy.deepcopy(case.network).double(), dtype=torch.float64)
    trajectory = ours_rollout(exact)
    samples = relative(by_id(trajectory, exact.steps), plain_rollout(exact)[0][-1])
    return samples, gradient_difference(ours_update(exact, trajectory), plain_update(exact, trajectory))


def ours_rollout(case: Case) -> Trajectory:
    """Sample with the package."""
    return rollout(case.policy, case.prompts, RolloutConfig(time_step=case.steps))


def plain_rollout(case: Case) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Sample the plain way: latents, log-probabilities and the decoder's noise."""
    return plain_edm.rollout(case.plain, case.kernels, case.noise, case.mask)


def ours_update(case: Case, trajectory: Trajectory) -> dict[str, Tensor]:
    """Gradient of the objective over all steps, by the package's update with a learning rate of 0."""
    optimizer = torch.optim.SGD(case.policy.trainable().parameters(), lr=0.0)
    everything = UpdateConfig(max_grad_norm=float("inf"), exploded_above=float("inf"))
    objective = FedGRPO(FedGRPOConfig())
    ordered = case.advantages[torch.searchsorted(case.prompts.sample_ids, trajectory.sample_ids)]
    update(case.policy, trajectory, Advantages(ordered, {}), objective, optimizer, everything)
    prefix = "dynamics.egnn."
    return {
        name.removeprefix(prefix): parameter.grad
        for name, parameter in case.network.named_parameters()
        if parameter.grad is not None
    }


def plain_update(case: Case, trajectory: Trajectory) -> dict[str, Tensor]:
    """The same gradient, step after step with ordinary autograd."""
    case.plain.zero_grad()
    latents = [by_id(trajectory, place) for place in range(case.steps + 1)]
    order = torch.argsort(trajectory.sample_ids)
    log_probs = [torch.cat([b.log_probs[k] for b in trajectory.buckets])[order] for k in range(case.steps)]
    clip_range = FedGRPOConfig().clip_range
    advantages = case.advantages.to(case.dtype)
    plain_edm.update(case.plain, case.kernels, latents, log_probs, advantages, case.mask, clip_range)
    return case.plain.gradients()


def by_id(trajectory: Trajectory, place: int) -> Tensor:
    """Latents at a place of the walk, in the order of the samples' ids, (B, N, D), padded to the largest."""
    widest = max(bucket.mask.shape[1] for bucket in trajectory.buckets)
    rows = torch.cat([pad_atoms(bucket.latents[place], widest) for bucket in trajectory.buckets])
    return rows[torch.argsort(trajectory.sample_ids)]


def relative(first: Tensor, second: Tensor) -> float:
    """Largest difference over the largest value, max |a - b| / max |b|."""
    return float((first - second).abs().max() / second.abs().max())


def gradient_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """Largest difference of two gradients relative to the largest entry."""
    if first.keys() != second.keys():
        raise ValueError(f"gradients of different parameters: {sorted(first.keys() ^ second.keys())[:3]}")
    names = sorted(first)
    return relative(*(torch.cat([part[name].flatten() for name in names]) for part in (first, second)))
