"""Conformance checks that anyone can run on a policy, reward or force field of their own.

    from atomrl.testing import check_policy
    check_policy(my_policy, prompts, num_steps=20)

Each check raises AssertionError with the property that does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atomrl.core.log_prob import gaussian_log_prob
from atomrl.core.protocols import DiffusionPolicy, ForceField, Result, Reward
from atomrl.core.records import Bucket, Prompts, Step, Structures, Trajectory, Transition, pad_atoms
from atomrl.core.rollout import RolloutConfig, draw, rollout

PADDING = 2
"""Atoms by which `check_policy` pads even the largest sample."""


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
    assert len(walk) == num_steps, f"transitions({num_steps}) returned {len(walk)} steps"
    assert [step.index for step in walk] == list(range(num_steps)), "transitions must be numbered 0..T-1 in order"
    assert all(step.t > step.s for step in walk), "time must fall along the walk"
    assert any(step.trainable for step in walk), "no transition is trainable"

    trajectory = rollout(policy, prompts, RolloutConfig(num_steps, micro_batch_size=len(prompts)))
    for bucket in trajectory.buckets:
        assert len(bucket.structures) == len(bucket.prompts), "decode must return one structure per prompt"
        assert torch.equal(bucket.structures.sizes, bucket.prompts.sizes), "decoded sizes differ from the prompts'"
        for index, old in bucket.log_probs.items():
            transition = walk[index]
            latents, following = bucket.latents[index], bucket.latents[index + 1]
            step = policy.step(latents, bucket.mask, transition, bucket.prompts)
            assert transition.trainable, f"transition {index} is recorded but not trainable"
            assert bool((torch.as_tensor(step.std) > 0).all()), f"trainable transition {index} has a std of 0"
            _assert_close(policy.project(following, bucket.mask), following, tolerance, "project must keep a latent")
            new = gaussian_log_prob(following, step.mean, step.std, bucket.mask, "sum")
            _assert_close(
                new - old, torch.zeros_like(old), tolerance, f"log-ratio of transition {index} before an update"
            )
            log_prob = gaussian_log_prob(following, step.mean, step.std, bucket.mask, "sum")
            _check_gradient(policy, log_prob, "log-probability")
            _check_estimate(policy, bucket, transition, step, tolerance)
        _check_forward_process(policy, bucket, tolerance)
    _check_padding(policy, trajectory, tolerance)


def _check_gradient(policy: DiffusionPolicy, values: Tensor, what: str) -> None:
    """What an objective reads must reach a trainable parameter with finite gradients."""
    parameters = [p for p in policy.trainable().parameters() if p.requires_grad]
    gradients = torch.autograd.grad(values.sum(), parameters, allow_unused=True, retain_graph=True)
    used = [gradient for gradient in gradients if gradient is not None]
    assert used, f"the {what} does not depend on any trainable parameter"
    assert all(bool(torch.isfinite(gradient).all()) for gradient in used), f"a gradient of the {what} is not finite"


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
        _assert_close(policy.project(signal, mask), signal, tolerance, "estimate must return a latent of the space")
        predicted = policy.predict(latents, mask, times, prompts)
        _, target = policy.forward_noise(estimate, mask, times, predicted)
        if torch.allclose(target, predicted, atol=tolerance):  # the network predicts the noise
            again, _ = policy.forward_noise(estimate, mask, times, predicted)
            what = f"z0_pred of transition {transition.index}, noised again by its own prediction, must give z_t back"
            _assert_close(again, latents, 100 * tolerance, what)
        calls: list[object] = []
        hook = policy.trainable().register_forward_hook(lambda *_: calls.append(None))
        try:
            structures = policy.read(estimate, mask, prompts)
        finally:
            hook.remove()
    assert not calls, "read must not call the denoiser"
    assert torch.equal(structures.sizes, prompts.sizes), (
        "the sizes of structures that were read differ from the prompts'"
    )


def _check_forward_process(policy: DiffusionPolicy, bucket: Bucket, tolerance: float) -> None:
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
    _assert_close(policy.project(noised, mask), noised, tolerance, "forward_noise must return a latent of the space")
    _check_gradient(policy, (predicted - target).square(), "denoising loss")
    for row in range(len(clean)):
        rows = slice(row, row + 1)
        alone, _ = policy.forward_noise(clean[rows], mask[rows], times[rows], normals[rows])
        _assert_close(alone, noised[rows], tolerance, "forward_noise must give each sample its own time")
        answer = policy.predict(alone, mask[rows], times[rows], prompts[rows])
        _assert_close(answer, predicted[rows], tolerance, "predict must give each sample its own time")


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
                _assert_close(found[real], expected[real], tolerance, what)
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


def check_reward(reward: Reward, structures: Structures, prompts: Prompts) -> None:
    """Check that a reward returns one finite number, or NaN with a reason, per sample and channel, reproducibly."""
    assert reward.scope in {"per_sample", "per_batch"}, f"scope is {reward.scope!r}: use per_sample or per_batch"
    table, again = reward.score(structures, prompts), reward.score(structures, prompts)
    assert len(table) == len(structures), f"{len(table)} rows for {len(structures)} structures"
    assert table.channels, "no channel"
    for name, values in table.channels.items():
        assert values.shape == (len(structures),), f"channel {name} has shape {tuple(values.shape)}"
        unexplained = torch.tensor([reason is None for reason in table.reasons]) & ~torch.isfinite(values.cpu())
        assert not bool(unexplained.any()), f"channel {name} has NaN or infinity without a reason"
        assert torch.equal(values.nan_to_num(), again.channels[name].nan_to_num()), (
            f"channel {name} is not reproducible"
        )
    if reward.scope == "per_sample":
        rows = torch.arange(len(structures)).flip(0)
        turned = reward.score(structures[rows], prompts[rows])
        for name, values in table.channels.items():
            _assert_close(
                turned.channels[name].flip(0), values, 1e-9, f"channel {name} depends on the order of samples"
            )


def check_force_field(
    force_field: ForceField, structures: Structures, step: float = 1e-4, tolerance: float = 0.02
) -> None:
    """Check that forces are slopes of the energy, and that neither order, orientation nor company of atoms matters.

    Structures without a result are left out.

    Args:
        force_field: gives energies and forces.
        structures: of which at least one has a result.
        step: Å, of the central differences; 2e-3 for a network in float32.
        tolerance: eV/Å, and eV, beside 1 % of a slope.
    """
    results = force_field.evaluate(structures)
    assert len(results) == len(structures), f"{len(results)} results for {len(structures)} structures"
    known = [row for row, result in enumerate(results) if result.reason is None]
    assert known, f"no structure has a result: {results[0].reason if results else 'there is none'}"
    found = [results[row] for row in known]
    sound = structures[torch.tensor(known, device=structures.numbers.device)]
    _check_slopes(force_field, sound, found, step, tolerance)
    for row in range(len(sound)):
        what = f"structure {known[row]} alone"
        _same_result(force_field.evaluate(sound[row : row + 1])[0], found[row], what, tolerance)
    _check_order(force_field, sound, found, tolerance)
    _check_orientation(force_field, sound, found, tolerance)


def check_crystal_force_field(
    force_field: ForceField, structures: Structures, step: float = 1e-4, tolerance: float = 0.02
) -> None:
    """Check what `check_force_field` does; the stress, by finite differences; and that two cells have twice the energy.

    Args:
        force_field: gives energies of the cell, forces, and `stress`, (dE/dstrain) / volume in eV/Å³, (3, 3).
        structures: with cells; of which at least one has a result.
        step: Å, and of the strain; 2e-3 for a network in float32.
        tolerance: eV/Å, eV, and eV per unit of strain, beside 1 % of a slope.
    """
    check_force_field(force_field, structures, step, tolerance)
    results = force_field.evaluate(structures)
    known = [row for row, result in enumerate(results) if result.reason is None]
    sound = structures[torch.tensor(known, device=structures.numbers.device)]
    found = [results[row] for row in known]
    _check_stress(force_field, sound, found, step, tolerance)
    _check_supercells(force_field, sound, found, tolerance)


def _check_stress(
    force_field: ForceField, structures: Structures, results: Sequence[Result], step: float, tolerance: float
) -> None:
    """Of each crystal: along a stretch and along a shear, with the atoms carried along."""
    assert structures.cell is not None
    cell = structures.cell.double().cpu()
    volumes = torch.linalg.det(cell).abs().tolist()
    for name, (row, column) in {"stretch along z": (2, 2), "shear in the plane of x and y": (0, 1)}.items():
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[row, column] += step / 2
        strain[column, row] += step / 2
        ends = []
        for sign in (1, -1):
            matrix = torch.eye(3, dtype=torch.float64) + sign * strain
            positions = structures.positions @ matrix.to(structures.positions)
            moved = replace(structures, positions=positions, cell=structures.cell @ matrix.to(structures.cell))
            ends.append(force_field.evaluate(moved))
        for number, (result, up, down, volume) in enumerate(zip(results, *ends, volumes, strict=True)):
            numerical = (up.energy - down.energy) / (2 * step)
            assert hasattr(result, "stress"), f"crystal {number}: its result has no stress"
            said = float(volume * (strain.numpy() * result.stress).sum() / step)
            assert abs(numerical - said) < max(tolerance, 0.01 * abs(numerical)), (
                f"crystal {number}: {name} changes the energy by {said:.4f} eV per unit by its stress, finite "
                f"differences say {numerical:.4f}"
            )


def _check_supercells(
    force_field: ForceField, structures: Structures, results: Sequence[Result], tolerance: float
) -> None:
    """Each cell twice along its first vector: twice the energy, and on each copy the same forces."""
    assert structures.cell is not None
    cell = structures.cell.clone()
    cell[:, 0] *= 2
    doubled = Structures(
        torch.cat([structures.numbers] * 2, 1),
        torch.cat([structures.positions, structures.positions + structures.cell[:, :1]], 1),
        torch.cat([structures.mask] * 2, 1),
        cell,
    )
    for number, (result, twice) in enumerate(zip(results, force_field.evaluate(doubled), strict=True)):
        expected = Expected(2 * result.energy, np.concatenate([result.forces] * 2))
        _same_result(twice, expected, f"crystal {number} in a cell of twice the length", tolerance)


def _check_slopes(
    force_field: ForceField, structures: Structures, results: Sequence[Result], step: float, tolerance: float
) -> None:
    """Of each structure: the force on its first atom along x, and all forces along one direction of all atoms."""
    draw = torch.Generator().manual_seed(0)
    every = torch.randn(structures.positions.shape, generator=draw, dtype=torch.float64)
    every = every.to(structures.positions) * structures.mask[..., None]
    every = every / torch.linalg.vector_norm(every, dim=(1, 2), keepdim=True)
    first = torch.zeros_like(every)
    first[torch.arange(len(structures)), structures.mask.int().argmax(1), 0] = 1.0
    for name, direction in (("on the first atom along x", first), ("along a direction of all atoms", every)):
        moved = [
            force_field.evaluate(replace(structures, positions=structures.positions + sign * step * direction))
            for sign in (1, -1)
        ]
        for row, (result, up, down) in enumerate(zip(results, *moved, strict=True)):
            numerical = -(up.energy - down.energy) / (2 * step)
            said = float((direction[row][structures.mask[row]].cpu().double().numpy() * result.forces).sum())
            assert abs(numerical - said) < max(tolerance, 0.01 * abs(numerical)), (
                f"structure {row}: force {name} {said:.4f} eV/Å, finite differences say {numerical:.4f}"
            )


def _check_order(force_field: ForceField, structures: Structures, results: Sequence[Result], tolerance: float) -> None:
    """The atoms the other way round: forces go with them."""
    turned = Structures(
        structures.numbers.flip(1), structures.positions.flip(1), structures.mask.flip(1), structures.cell
    )
    for row, (result, other) in enumerate(zip(results, force_field.evaluate(turned), strict=True)):
        expected = Expected(result.energy, result.forces[::-1])
        _same_result(other, expected, f"structure {row} with its atoms in another order", tolerance)


def _check_orientation(
    force_field: ForceField, structures: Structures, results: Sequence[Result], tolerance: float
) -> None:
    """All turned by one rotation: forces turn with them."""
    draw = torch.Generator().manual_seed(1)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=draw, dtype=torch.float64))
    rotation = rotation * torch.linalg.det(rotation)
    matrix = rotation.to(structures.positions)
    cell = None if structures.cell is None else structures.cell @ matrix.to(structures.cell)
    turned = replace(structures, positions=structures.positions @ matrix, cell=cell)
    for row, (result, other) in enumerate(zip(results, force_field.evaluate(turned), strict=True)):
        expected = Expected(result.energy, result.forces @ rotation.numpy())
        _same_result(other, expected, f"structure {row} rotated", tolerance)


class Expected(NamedTuple):
    """What a result should be: eV and eV/Å."""

    energy: float
    forces: NDArray[np.float64]


def _same_result(result: Result, expected: Expected | Result, what: str, tolerance: float) -> None:
    """Raise if a result differs from what is expected, by more than a tolerance in eV and eV/Å."""
    assert result.reason is None, f"{what}: {result.reason}"
    energies, forces = abs(result.energy - expected.energy), float(np.abs(result.forces - expected.forces).max())
    assert energies <= tolerance, f"{what}: the energy differs by {energies:.2e} eV"
    assert forces <= tolerance, f"{what}: a force differs by {forces:.2e} eV/Å"


def _assert_close(value: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Raise if two tensors differ by more than a tolerance relative to max(1, size)."""
    value, expected = value.detach(), expected.detach()
    same_nan = torch.isnan(value) & torch.isnan(expected)
    scale = max(1.0, float(expected.nan_to_num().abs().max()))
    error = float(torch.where(same_nan, 0.0, (value - expected).abs()).max()) / scale
    assert error <= tolerance, f"{what}: error {error:.2e}, allowed {tolerance:.0e}"
