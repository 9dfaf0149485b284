"""Grouped sampling: walk the reverse diffusion and keep what the update will read, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from atomrl.core.log_prob import gaussian_log_prob
from atomrl.core.prompts import cut_into_buckets
from atomrl.core.protocols import DiffusionPolicy, Draw
from atomrl.core.random import generator, key, keyed_normals
from atomrl.core.records import Bucket, Prompts, Step, Structures, Trajectory, Transition
from atomrl.util.errors import UserError


@dataclass(frozen=True)
class RolloutConfig:
    """How to sample.

    Attributes:
        time_step: T, transitions of the walk.
        micro_batch_size: samples that the sampler sees at once; never splits a group.
        share_initial_noise: one initial latent per group.
        skip_prefix: so many transitions at the beginning are walked once for each group, then its members go their own
            ways; only those are trained. Needs `share_initial_noise`.
        return_suffix_only: keep no latents of that prefix, which no update reads; False: keep them all.
        train_steps: transitions kept for the update, equally spaced from a random start; None keeps all, 0 none.
        train_min_time, train_max_time: transitions that start at a time t outside of this are sampled but never kept.
        log_prob_reduction: `sum` or `mean` over the elements of a latent.
        estimate_at: places in the walk at which what z0_pred stands for is kept: those of a reward schedule.
        mean_at: places at which the mean of a trained step is kept.
    """

    time_step: int = 1000
    micro_batch_size: int = 512
    share_initial_noise: bool = False
    skip_prefix: int = 0
    return_suffix_only: bool = True
    train_steps: int | None = None
    train_min_time: float = 0.0
    train_max_time: float = 1.0
    log_prob_reduction: str = "sum"
    estimate_at: tuple[int, ...] = ()
    mean_at: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raise UserError for a prefix that leaves nothing to walk, or that nobody shares."""
        if not 0 <= self.skip_prefix < self.time_step:
            raise UserError(
                f"skip_prefix={self.skip_prefix}: must lie between 0 and {self.time_step - 1}, of {self.time_step}"
            )
        if self.skip_prefix and not self.share_initial_noise:
            raise UserError(f"skip_prefix={self.skip_prefix} shares the walk's beginning: set share_initial_noise too")


def trainable_steps(
    walk: Sequence[Transition], times: tuple[float, float] = (0.0, 1.0), first: int = 0
) -> tuple[int, ...]:
    """Indices of the transitions from `first` on that have a spread and start at a time t in `times`."""
    low, high = times
    return tuple(step.index for step in walk[first:] if step.trainable and low <= step.t <= high)


def choose_steps(
    walk: Sequence[Transition],
    count: int | None,
    seed: int,
    iteration: int,
    times: tuple[float, float] = (0.0, 1.0),
    first: int = 0,
) -> tuple[int, ...]:
    """Indices of the transitions that an iteration trains on, among the trainable ones from `first` on, t in `times`.

    Systematic sampling: equally spaced places on the list of trainable transitions, all shifted by one random offset.
    Each of those S is drawn with the same chance count / S (so the sum over steps is estimated without bias), none
    twice, and every stage of the walk is seen in every iteration.

    Raises:
        UserError: no transition is left to train on.
    """
    if count == 0:
        return ()
    trainable = trainable_steps(walk, times, first)
    if not trainable:
        low, high = times
        raise UserError(f"none of {len(walk)} transitions has {low} <= t <= {high}: widen the range or take more steps")
    if count is None or count >= len(trainable):
        return trainable
    rng = generator("cpu", seed, iteration, "train_steps")
    places = (torch.arange(count) + torch.rand(1, generator=rng, dtype=torch.float64)) * (len(trainable) / count)
    return tuple(trainable[int(place)] for place in places.tolist())


def probed_steps(walk: Sequence[Transition], trained: Sequence[int]) -> tuple[int, ...]:
    """Two of the trained transitions, at a quarter and three quarters of them: what is remembered of the behaviour.

    Where none is trained, as for a forward-process objective, two of the trainable ones; where none is, nothing.
    """
    steps = trained or [transition.index for transition in walk if transition.trainable]
    return tuple(dict.fromkeys((steps[len(steps) // 4], steps[3 * len(steps) // 4]))) if steps else ()


def rollout(
    policy: DiffusionPolicy,
    prompts: Prompts,
    config: RolloutConfig,
    on_bucket: Callable[[Bucket], None] | None = None,
) -> Trajectory:
    """Sample every prompt and record the trajectory.

    Args:
        policy: the behaviour policy.
        prompts: rows of a group adjacent; on the policy's device.
        config: how to sample.
        on_bucket: called with each bucket when it is complete, e.g. to start scoring it.
    """
    walk = policy.transitions(config.time_step)
    times = (config.train_min_time, config.train_max_time)
    trained = choose_steps(walk, config.train_steps, prompts.seed, prompts.iteration, times, config.skip_prefix)
    buckets = []
    with torch.no_grad():
        for batch in cut_into_buckets(prompts, config.micro_batch_size):
            bucket = _sample(policy, batch, walk, trained, config)
            if on_bucket is not None:
                on_bucket(bucket)
            buckets.append(bucket)
    return Trajectory(walk, trained, tuple(buckets))


def _sample(
    policy: DiffusionPolicy,
    prompts: Prompts,
    walk: Sequence[Transition],
    trained: Sequence[int],
    config: RolloutConfig,
) -> Bucket:
    """Walk one bucket from noise to structures; a shared prefix with the first member of each group."""
    walkers, members = _leaders(prompts) if config.skip_prefix else (prompts, torch.arange(0))
    latents, mask = policy.prior(walkers, draw(walkers, "prior", shared=config.share_initial_noise))
    dtype, atoms = latents.dtype, latents.shape[1]
    probed, wanted = set(probed_steps(walk[config.skip_prefix :], trained)), set(trained)
    kept: dict[int, Tensor] = {}
    log_probs: dict[int, Tensor] = {}
    behaviour: dict[int, Step] = {}
    means: dict[int, Tensor] = {}
    estimates: dict[int, Structures] = {}
    for transition in walk:
        index, shared = transition.index, transition.index < config.skip_prefix
        if walkers is not prompts and not shared:
            latents, mask, walkers = latents[members], mask[members], prompts
        step = policy.step(latents, mask, transition, walkers)
        following = step.mean
        if transition.trainable:
            normals = draw(walkers, "step", index, shared, dtype, atoms)(latents.shape[-1])
            following = policy.project(step.mean + step.std * policy.noise(normals, mask), mask)
        if shared and not config.return_suffix_only:
            kept[index] = latents[members]
        if index in wanted:
            kept[index], kept[index + 1] = latents, following
            log_probs[index] = gaussian_log_prob(following, step.mean, step.std, mask, config.log_prob_reduction)
            if index in config.mean_at:
                means[index] = step.mean
        if index in probed:
            kept[index], behaviour[index] = latents, step
        if index in config.estimate_at:
            read = policy.read(policy.estimate(latents, transition, step.prediction), mask, walkers)
            estimates[index] = read[members] if shared else read
        latents = following
    return Bucket(
        prompts=prompts,
        mask=mask,
        latents=kept,
        log_probs=log_probs,
        log_prob_reduction=config.log_prob_reduction,
        behaviour=behaviour,
        clean=latents,
        means=means,
        estimates=estimates,
        structures=policy.decode(latents, mask, prompts, draw(prompts, "decode", dtype=dtype, atoms=atoms)),
    )


def _leaders(prompts: Prompts) -> tuple[Prompts, Tensor]:
    """The first sample of each group, (G,), and for each sample the place of its group among these, (B,)."""
    begins = torch.ones(len(prompts), dtype=torch.bool, device=prompts.group_ids.device)
    begins[1:] = prompts.group_ids.diff() != 0
    return prompts[begins.nonzero().squeeze(1)], begins.cumsum(0) - 1


def draw(
    prompts: Prompts,
    purpose: str,
    step: int = 0,
    shared: bool = False,
    dtype: torch.dtype = torch.float32,
    atoms: int | None = None,
) -> Draw:
    """Source of standard normals for a batch: one per sample, or one per group if shared.

    `atoms` is the padded width; if None it is read off the prompts, for which a GPU has to be waited for.
    """
    ids = prompts.group_ids if shared else prompts.sample_ids
    atoms = int(prompts.sizes.max()) if atoms is None else atoms
    seed = key(prompts.seed, prompts.iteration, purpose, step)
    return lambda features: keyed_normals(ids, atoms, features, seed, dtype)
