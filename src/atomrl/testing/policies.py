"""What the core builds on in a policy."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from atomrl.core.log_prob import gaussian_log_prob
from atomrl.core.protocols import DiffusionPolicy
from atomrl.core.records import Bucket, Prompts, Step, Trajectory, Transition, pad_atoms
from atomrl.core.rollout import RolloutConfig, draw, rollout
from atomrl.core.update import UpdateConfig, usable
from atomrl.testing.answers import check_answers, check_structures
from atomrl.testing.closeness import assert_close

PADDING = 2
"""Atoms by which `check_policy` pads even the largest sample."""

_REMEDY = "compute it from what trainable() answers, without detach() or no_grad()"


def check_policy(policy: DiffusionPolicy, prompts: Prompts, num_steps: int = 20, tolerance: float = 1e-5) -> None:
    """Check that a policy keeps the promises that the core builds on.

    Args:
        policy: on the prompts' device.
        prompts: at least two samples of different sizes: they must not notice each other in one batch.
        num_steps: length of the walk.
        tolerance: of log-ratios and padding, as in float32; pass 1e-8 for a float64 policy.
    """
    assert isinstance(policy, DiffusionPolicy), f"{type(policy).__name__} lacks methods of DiffusionPolicy"
    walk = policy.transitions(num_steps)
    assert isinstance(walk, tuple | list), f"transitions must return a tuple of Transition, got {type(walk).__name__}"
    for transition in walk:
        assert isinstance(transition, Transition), (
            f"transitions must return Transition objects, got {type(transition).__name__}"
        )
    assert len(walk) == num_steps, f"transitions({num_steps}) returned {len(walk)} steps"
    assert [step.index for step in walk] == list(range(num_steps)), "transitions must be numbered 0..T-1 in order"
    assert all(step.t > step.s for step in walk), "time must fall along the walk"
    assert any(step.trainable for step in walk), "no transition is trainable"

    check_answers(policy, prompts, tuple(walk))
    trajectory = rollout(policy, prompts, RolloutConfig(num_steps, micro_batch_size=len(prompts)))
    teaching = usable(trajectory, UpdateConfig().exploded_above).split([len(bucket) for bucket in trajectory.buckets])
    gradients = _Gradients(policy)
    for bucket, teaches in zip(trajectory.buckets, teaching, strict=True):
        counts = bool(teaches.any())
        check_structures(bucket.structures, bucket.prompts, "decode")
        for index, old in bucket.log_probs.items():
            transition = walk[index]
            latents, following = bucket.latents[index], bucket.latents[index + 1]
            step = policy.step(latents, bucket.mask, transition, bucket.prompts)
            assert transition.trainable, f"transition {index} is recorded but not trainable"
            assert bool((torch.as_tensor(step.std) > 0).all()), f"trainable transition {index} has a std of 0"
            assert_close(policy.project(following, bucket.mask), following, tolerance, "project must keep a latent")
            new = gaussian_log_prob(following, step.mean, step.std, bucket.mask, "sum")
            assert_close(
                new - old, torch.zeros_like(old), tolerance, f"log-ratio of transition {index} before an update"
            )
            gradients.check(step.mean, f"mean of transition {index}", counts)
            gradients.check(new, f"log-probability of transition {index}", counts)
            _check_estimate(policy, bucket, transition, step, tolerance)
        _check_forward_process(policy, bucket, gradients, counts, tolerance)
    gradients.require_some()
    _check_padding(policy, trajectory, tolerance)
    _check_copies(copy.deepcopy(policy), trajectory, tolerance)


class _Gradients:
    """What an objective reads must reach a trainable parameter, with gradients that are finite and not all 0.

    A gradient may be 0 in one bucket: of single atoms in a zero-mean space, or of samples that exploded, whose noise is
    below the rounding of their latents. So it must not be 0 in all buckets from which a training would learn.

    Args:
        policy: whose.
    """

    def __init__(self, policy: DiffusionPolicy) -> None:
        self.parameters = [p for p in policy.trainable().parameters() if p.requires_grad]
        assert self.parameters, "trainable must return a module with parameters that require a gradient"
        self._reached: dict[str, bool] = {}

    def check(self, values: Tensor, what: str, counts: bool) -> None:
        """Look at the gradient of a weighted sum: a plain one is constant where the mean over the atoms is 0.

        Args:
            values: of a bucket.
            what: they are; the same in each bucket.
            counts: a training would learn from this bucket.
        """
        missing = f"the {what} does not depend on any trainable parameter: {_REMEDY}"
        assert values.requires_grad, missing
        weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(0)).to(values)
        total = (values * weights).sum()
        found = torch.autograd.grad(total, self.parameters, allow_unused=True, retain_graph=True)
        used = [gradient for gradient in found if gradient is not None]
        assert used, missing
        assert all(bool(torch.isfinite(gradient).all()) for gradient in used), f"a gradient of the {what} is not finite"
        if counts:
            reaches = any(bool((gradient != 0).any()) for gradient in used)
            self._reached[what] = self._reached.get(what, False) or reaches

    def require_some(self) -> None:
        """Raise AssertionError for the first of what was checked that is 0 wherever it counts."""
        for what, reaches in self._reached.items():
            assert reaches, f"the gradient of the {what} is 0 for all trainable parameters: {_REMEDY}"


def _check_estimate(
    policy: DiffusionPolicy, bucket: Bucket, transition: Transition, step: Step, tolerance: float
) -> None:
    """z0_pred lies in the policy's space, agrees with `predict`, and `read` makes structures of it without a call."""
    latents, mask, prompts = bucket.latents[transition.index], bucket.mask, bucket.prompts
    with torch.no_grad():
        estimate = policy.estimate(latents, transition, step.prediction.detach())
        times = latents.new_full((len(latents),), transition.t)
        # alpha_t z0_pred, since near t = 1 the division by a small alpha_t magnifies roundings
        signal, _ = policy.forward_noise(estimate, mask, times, torch.zeros_like(latents))
        assert_close(policy.project(signal, mask), signal, tolerance, "estimate must return a latent of the space")
        _check_implied(policy, latents, mask, transition, prompts, estimate, tolerance)
        calls: list[object] = []
        hook = policy.trainable().register_forward_hook(lambda *_: calls.append(None))
        try:
            structures = policy.read(estimate, mask, prompts)
        finally:
            hook.remove()
    assert not calls, "read must not call the denoiser"
    check_structures(structures, prompts, "read")


def _check_implied(
    policy: DiffusionPolicy,
    latents: Tensor,
    mask: Tensor,
    transition: Transition,
    prompts: Prompts,
    estimate: Tensor,
    tolerance: float,
) -> None:
    """z0_pred and the noise that z_t then holds are what the network's prediction says, whatever it predicts.

    With eps = (z_t - alpha_t z0_pred) / sigma_t, `forward_noise` of z0_pred and eps gives z_t back, and as the target
    of a prediction it gives the prediction itself: be that the noise, z_0, or a mixture of both. Multiplied by sigma_t,
    since near t = 0 the division by it magnifies roundings.
    """
    times = latents.new_full((len(latents),), transition.t)
    signal, level = (part.to(latents.dtype) for part in policy.levels(times))
    implied = (latents - signal * estimate) / level
    again, target = policy.forward_noise(estimate, mask, times, implied)
    where = f"z0_pred of transition {transition.index}, which estimate returned"
    what = f"{where}, noised again by the noise that it implies, must give z_t back"
    assert_close(again, latents, 100 * tolerance, what)
    predicted = policy.predict(latents, mask, times, prompts)
    what = f"{where}, does not agree with the network's prediction at t: as a target of forward_noise it must give that"
    assert_close(level * target, level * predicted, 100 * tolerance, what)


def _check_forward_process(
    policy: DiffusionPolicy, bucket: Bucket, gradients: _Gradients, counts: bool, tolerance: float
) -> None:
    """Noising and prediction at a time of each sample's own: in the policy's space, the same as alone, and finite."""
    clean, mask, prompts = bucket.clean, bucket.mask, bucket.prompts
    times = torch.linspace(0.2, 0.8, len(clean), dtype=clean.dtype, device=clean.device)
    normals = draw(prompts, "forward", dtype=clean.dtype, atoms=clean.shape[1])(clean.shape[-1])
    noised, target = policy.forward_noise(clean, mask, times, normals)
    predicted = policy.predict(noised, mask, times, prompts)
    assert noised.shape == clean.shape, f"forward_noise returned z_t of shape {tuple(noised.shape)}"
    assert predicted.shape == target.shape, (
        f"predict returned {tuple(predicted.shape)}, its target in forward_noise has {tuple(target.shape)}"
    )
    assert_close(policy.project(noised, mask), noised, tolerance, "forward_noise must return a latent of the space")
    gradients.check((predicted - target).square(), "denoising loss", counts)
    for row in range(len(clean)):
        rows = slice(row, row + 1)
        alone, _ = policy.forward_noise(clean[rows], mask[rows], times[rows], normals[rows])
        assert_close(alone, noised[rows], tolerance, "forward_noise must give each sample its own time")
        answer = policy.predict(alone, mask[rows], times[rows], prompts[rows])
        assert_close(answer, predicted[rows], tolerance, "predict must give each sample its own time")


def _check_padding(policy: DiffusionPolicy, trajectory: Trajectory, tolerance: float) -> None:
    """A sample's step and noise must depend neither on its padding nor on the sizes of the samples beside it.

    A rollout pads little or not at all, so here all its samples, small and large, form one batch that is wider than
    any of them.
    """
    prompts = trajectory.prompts
    atoms = int(prompts.sizes.max()) + PADDING
    mask = torch.cat([pad_atoms(bucket.mask, atoms) for bucket in trajectory.buckets])
    for index in trajectory.trained:
        transition = trajectory.walk[index]
        latents = torch.cat([pad_atoms(bucket.latents[index], atoms) for bucket in trajectory.buckets])
        wide = _answers(policy, latents, mask, transition, prompts)
        start = 0
        for bucket in trajectory.buckets:
            rows, real = slice(start, start + len(bucket.prompts)), bucket.mask > 0
            narrow = _answers(policy, bucket.latents[index], bucket.mask, transition, bucket.prompts)
            for name, expected in narrow.items():
                found = wide[name][rows, : real.shape[1]]
                what = f"the {name} of transition {index} depends on the padding, or on other samples' sizes"
                assert_close(found[real], expected[real], tolerance, what)
            start = rows.stop


def _answers(
    policy: DiffusionPolicy, latents: Tensor, mask: Tensor, transition: Transition, prompts: Prompts
) -> dict[str, Tensor]:
    """What a policy says about latents (B, N, D), and about normals that each sample has of its own, by name."""
    normals = draw(prompts, "padding", transition.index, dtype=latents.dtype, atoms=mask.shape[1])(latents.shape[-1])
    with torch.no_grad():
        step = policy.step(latents, mask, transition, prompts)
        noise, projected = policy.noise(normals, mask), policy.project(normals, mask)
    std = torch.as_tensor(step.std, dtype=step.mean.dtype, device=step.mean.device).expand_as(step.mean)
    return {"mean": step.mean, "std": std, "noise": noise, "projection": projected}


def _check_copies(policy: DiffusionPolicy, trajectory: Trajectory, tolerance: float) -> None:
    """The initial and the old model answer where they are asked, whatever the current one has become.

    Objectives compare the current model with them; if it answered itself, nothing would hold it near them.

    Args:
        policy: whose weights are moved.
        trajectory: of it.
        tolerance: of its answers.
    """
    bucket = trajectory.buckets[-1]  # of the largest samples: one atom alone may not move
    transition = trajectory.walk[trajectory.trained[len(trajectory.trained) // 2]]
    latents, mask, prompts = bucket.latents[transition.index], bucket.mask, bucket.prompts
    times = latents.new_full((len(latents),), transition.t)

    def answers() -> Mapping[str, Tensor]:
        with torch.no_grad():
            step = policy.step(latents, mask, transition, prompts)
            return {"step": step.mean, "predict": policy.predict(latents, mask, times, prompts)}

    def check(where: str, expected: Mapping[str, Tensor], model: str) -> None:
        for name, found in answers().items():
            assert_close(found, expected[name], tolerance, f"{where}, {name} must answer by {model}")

    policy.keep_reference()
    policy.follow(0.0)
    first = answers()
    with torch.no_grad():
        for parameter in policy.trainable().parameters():
            if parameter.requires_grad:
                parameter.mul_(1.05).add_(0.01)
    moved = answers()
    policy.follow(1.0)
    with policy.reference():
        check("inside reference()", first, "the model as it was at keep_reference()")
    with policy.old():
        check("inside old(), after follow(1.0)", first, "the old model as it was before")
    policy.follow(0.0)
    with policy.old():
        check("inside old(), after follow(0.0)", moved, "the current model as it was then")
    check("outside of reference() and old()", moved, "the current model")
