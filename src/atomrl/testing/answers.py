"""Whether a policy's methods answer with what the core reads: kinds, shapes, masks and padding, a sentence for each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from atomrl.core.protocols import DiffusionPolicy
from atomrl.core.records import Prompts, Step, Structures, Transition
from atomrl.core.rollout import draw


def check_answers(policy: DiffusionPolicy, prompts: Prompts, walk: tuple[Transition, ...]) -> None:
    """Ask each method once, for samples of different sizes in one batch.

    Args:
        policy: on the prompts' device.
        prompts: B samples.
        walk: of the policy.
    """
    module = policy.trainable()
    assert isinstance(module, nn.Module), f"trainable must return a torch module, got {_said(module)}"
    with torch.no_grad():
        latents, mask = _prior(policy, prompts)
        for transition in (walk[0], walk[-1]):
            _check_step(policy, latents, mask, transition, prompts)
        _check_space(policy, latents, mask, prompts)
        times = latents.new_full((len(prompts),), 0.5)
        _require_tensor(policy.predict(latents, mask, times, prompts), "predict", None)
        _check_levels(policy, times)
        pair = policy.forward_noise(latents, mask, times, torch.zeros_like(latents))
        for part, what in zip(_pair(pair, "forward_noise", "z_t and the target"), ("z_t", "a target"), strict=True):
            _require_tensor(part, f"forward_noise's {what}", tuple(latents.shape) if what == "z_t" else None)
        decoded = policy.decode(latents, mask, prompts, draw(prompts, "decode", dtype=latents.dtype))
        check_structures(decoded, prompts, "decode")
        check_structures(policy.read(latents, mask, prompts), prompts, "read")


def check_structures(structures: Structures, prompts: Prompts, method: str) -> None:
    """Whether structures that a policy made are padded records of these samples."""
    assert isinstance(structures, Structures), f"{method} must return Structures, got {_said(structures)}"
    mask, numbers, positions = structures.mask, structures.numbers, structures.positions
    assert mask.dtype == torch.bool, (
        f"the mask of the structures that {method} returns must be bool, got {_named(mask.dtype)}: `mask > 0`"
    )
    assert not numbers.is_floating_point(), (
        f"the atomic numbers that {method} returns must be int64, got {_named(numbers.dtype)}: `.long()`"
    )
    assert len(structures) == len(prompts), (
        f"{method} must return one structure per prompt, got {len(structures)} for {len(prompts)}"
    )
    shape = tuple(mask.shape)
    assert tuple(numbers.shape) == shape, f"numbers of {method} have shape {tuple(numbers.shape)}, the mask {shape}"
    assert tuple(positions.shape) == (*shape, 3), (
        f"{method} must return positions of shape {(*shape, 3)}, Å, got {tuple(positions.shape)}"
    )
    assert torch.equal(structures.sizes, prompts.sizes), f"{method} returns other sizes than the prompts'"
    assert bool((positions[~mask] == 0).all()), (
        f"{method} must return positions that are 0 beyond the mask, where no atom is: times `mask[..., None]`"
    )
    assert bool((numbers[~mask] == 0).all()), f"{method} must return the atomic number 0 beyond the mask"


def _prior(policy: DiffusionPolicy, prompts: Prompts) -> tuple[Tensor, Tensor]:
    """z_T and its mask."""
    latents, mask = _pair(policy.prior(prompts, draw(prompts, "prior")), "prior", "z_T and its mask")
    _require_tensor(latents, "prior's z_T", None)
    assert latents.ndim == 3, f"prior's z_T must have the shape (B, N, D), got {tuple(latents.shape)}"
    _require_tensor(mask, "prior's mask", tuple(latents.shape[:2]))
    assert mask.dtype == latents.dtype, (
        f"prior's mask must be of the latents' dtype, {_named(latents.dtype)}, which it is multiplied with; got "
        f"{_named(mask.dtype)}"
    )
    expected = torch.arange(mask.shape[1], device=mask.device) < prompts.sizes[:, None]
    assert torch.equal(mask, expected.to(mask.dtype)), (
        "prior's mask must be 1 for the first atoms of a sample, as many as the prompt asks for, and 0 behind"
    )
    _require_padded(latents, mask, "prior's z_T")
    return latents, mask


def _check_step(
    policy: DiffusionPolicy, latents: Tensor, mask: Tensor, transition: Transition, prompts: Prompts
) -> None:
    """One step, and z0_pred of it."""
    step = policy.step(latents, mask, transition, prompts)
    assert isinstance(step, Step), f"step must return a Step(mean, std, prediction), got {_said(step)}"
    shape = tuple(latents.shape)
    _require_tensor(step.mean, "the mean of step", shape)
    _require_tensor(step.prediction, "the prediction of step", None)
    assert isinstance(step.std, Tensor | float | int), f"step's std must be a number or a tensor, got {_said(step.std)}"
    if isinstance(step.std, Tensor):
        assert step.std.shape in (torch.Size(()), latents.shape), (
            f"the std of step must be one number or have the latents' shape {shape}, got {tuple(step.std.shape)}"
        )
    estimate = policy.estimate(latents, transition, step.prediction)
    _require_tensor(estimate, "estimate", shape)


def _check_space(policy: DiffusionPolicy, latents: Tensor, mask: Tensor, prompts: Prompts) -> None:
    """`noise` and `project`; noise is projected wherever it is added."""
    shape = tuple(latents.shape)
    normals = draw(prompts, "padding", dtype=latents.dtype, atoms=shape[1])(shape[2])
    _require_tensor(policy.noise(normals, mask), "noise", shape)
    projected = policy.project(normals, mask)
    _require_tensor(projected, "project", shape)
    _require_padded(projected, mask, "what project returns")


def _check_levels(policy: DiffusionPolicy, times: Tensor) -> None:
    """alpha_t and sigma_t."""
    names = ("alpha_t", "sigma_t")
    for level, name in zip(_pair(policy.levels(times), "levels", " and ".join(names)), names, strict=True):
        _require_tensor(level, f"levels' {name}", (len(times), 1, 1))


def _pair(answer: object, method: str, what: str) -> tuple[Tensor, Tensor]:
    """The two things that a method returns."""
    assert isinstance(answer, tuple), f"{method} must return two tensors, {what}, got {_said(answer)}"
    assert len(answer) == 2, f"{method} must return two tensors, {what}, got {len(answer)}"
    first, second = answer
    return first, second


def _require_tensor(value: object, what: str, shape: tuple[int, ...] | None) -> None:
    """A tensor of floats, of this shape if one is given."""
    assert isinstance(value, Tensor), f"{what} must be a tensor, got {_said(value)}"
    assert value.is_floating_point(), f"{what} must hold floats, got {_named(value.dtype)}"
    assert shape is None or tuple(value.shape) == shape, f"{what} must have the shape {shape}, got {tuple(value.shape)}"


def _require_padded(latents: Tensor, mask: Tensor, what: str) -> None:
    """0 beyond the mask."""
    assert bool((latents[mask == 0] == 0).all()), (
        f"{what} must be 0 beyond the mask, where no atom is: times `mask[..., None]`"
    )


def _said(value: object) -> str:
    """What arrived, for messages."""
    return f"{_named(value.dtype)} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _named(dtype: torch.dtype) -> str:
    """A dtype without its module."""
    return str(dtype).removeprefix("torch.")
