"""Low-rank adapters (LoRA) beside layers of the crystal denoiser, by peft: W x becomes W x + scale B A x.

A layer with F inputs and G outputs gets A (rank, F), random, and B (G, rank), 0, so that nothing changes at first. Only
A and B are trained. Source: Hu et al. 2021, arXiv 2106.09685. peft is an extra that only training needs: `merged`
makes plain weights of those with adapters.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from atomrl.core.random import key
from atomrl.networks.conditional_dit import PREFIX, ConditionalDiT
from atomrl.networks.dit import DiT, SelfAttention
from atomrl.networks.lora_options import LoraOptions
from atomrl.util.errors import UserError
from atomrl.util.optional_imports import extra

IN_PROJ = "in_proj_weight"
"""The attention's projection of query, key and value: a parameter, and no layer of its own."""

BASE, DOWN, UP = ".base_layer", ".lora_A.", ".lora_B."
"""In peft's names of tensors: the layer that has an adapter, and the adapter's two matrices."""

WHOLE = "denoiser"
"""What the denoiser is called while peft looks at it: as a part, since its own `config` is none that peft can read."""


def adapt(denoiser: DiT, options: LoraOptions, seed: int) -> None:
    """Put adapters beside layers of a denoiser, in place; its own weights are frozen, what embeds conditions is not.

    Args:
        denoiser: without adapters, on the CPU.
        options: of the adapters, with a rank.
        seed: key of the random matrices.

    Raises:
        UserError: peft is not installed, a target is no layer of the denoiser, or the rank exceeds a layer's width.
    """
    chosen = _chosen(denoiser, options)
    with extra("lora"):
        from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - an extra, which takes seconds to import
    parameters = [f"{WHOLE}.{name}" for name in chosen if name.endswith(IN_PROJ)]
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.scale * options.rank,
        target_modules=[f"{WHOLE}.{name}" for name in chosen if not name.endswith(IN_PROJ)],
        target_parameters=parameters or None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, "lora"))
        inject_adapter_in_model(config, nn.ModuleDict({WHOLE: denoiser}))
    for module in denoiser.modules():
        if isinstance(module, SelfAttention):
            _put_last(module, IN_PROJ)
    if isinstance(denoiser, ConditionalDiT):
        denoiser.condition_module.requires_grad_(True)


def merged(weights: Mapping[str, Tensor], scale: float, origin: str) -> dict[str, Tensor]:
    """Plain weights W + scale B A of a denoiser with adapters; peft is not needed.

    Args:
        weights: by peft's names.
        scale: of the adapters.
        origin: where they are from, for errors.

    Raises:
        UserError: a layer has several adapters, or one that does not fit it.
    """
    plain = {name.replace(BASE, ""): weight for name, weight in weights.items() if not (DOWN in name or UP in name)}
    downs = {name: weight for name, weight in weights.items() if DOWN in name}
    if len(kinds := {name.partition(DOWN)[2] for name in downs}) > 1:
        raise UserError(f"{origin} holds several adapters, {', '.join(sorted(kinds))}: merge them first")
    for name, down in downs.items():
        layer = name.partition(DOWN)[0].replace(BASE, "")
        place = next((end for end in (f"{layer}.weight", f"{layer}.{IN_PROJ}") if end in plain), None)
        up = weights.get(name.replace(DOWN, UP))
        if place is None or up is None or _product_shape(up, down) != plain[place].shape:
            raise UserError(f"{origin}: the adapter of {layer} does not fit this layer")
        plain[place] = (plain[place].double() + scale * up.double() @ down.double()).to(plain[place].dtype)
    return plain


def _product_shape(up: Tensor, down: Tensor) -> tuple[int, ...] | None:
    """Of the product of two matrices; None: there is none."""
    if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0]:
        return None
    return up.shape[0], down.shape[1]


def _chosen(denoiser: DiT, options: LoraOptions) -> list[str]:
    """Names of the layers that the targets mean.

    Raises:
        UserError: as `adapt`.
    """
    layers = _layers(denoiser)
    for target in options.target_modules:
        if not any(_means(target, name) for name in layers):
            there = dict.fromkeys(_without_block(form) for name in layers for form in _forms(name))
            raise UserError(f"target_modules: the denoiser has no layer {target}; it has {', '.join(there)}")
    chosen = [name for name in layers if any(_means(target, name) for target in options.target_modules)]
    for name in chosen:
        if options.rank > min(layers[name]):
            outputs, inputs = layers[name]
            raise UserError(
                f"rank={options.rank}: {name} has {inputs} inputs and {outputs} outputs, and a rank above "
                f"{min(layers[name])} adds nothing; lower it"
            )
    return chosen


def _layers(denoiser: DiT) -> dict[str, tuple[int, int]]:
    """{name: outputs and inputs} of all that can have an adapter."""
    found: dict[str, tuple[int, int]] = {}
    for name, module in denoiser.named_modules():
        if isinstance(module, SelfAttention):
            found[f"{name}.{IN_PROJ}"] = (len(module.in_proj_weight), module.in_proj_weight.shape[1])
        elif isinstance(module, nn.Linear) and not name.startswith(PREFIX):
            found[name] = (module.out_features, module.in_features)
    return found


def _forms(name: str) -> tuple[str, ...]:
    """The names that mean a layer: its own, and, of a part of an attention, the attention's."""
    attention, _, part = name.rpartition(".")
    return (attention, name) if part in {IN_PROJ, "out_proj"} else (name,)


def _means(target: str, name: str) -> bool:
    """Whether a target means a layer: by the end of its name."""
    return any(f".{form}".endswith(f".{target}") for form in _forms(name))


def _without_block(name: str) -> str:
    """A name without the number of its block."""
    return name.split(".", 2)[2] if name.startswith("blocks.") else name


def _put_last(module: nn.Module, name: str) -> None:
    """Put a parameter behind the others of its module.

    Each forward pass of peft's takes it out and puts it back there. Copies of the model are averaged and compared with
    it parameter by parameter, whether they were asked already or not.
    """
    parameter = module.get_parameter(name)
    delattr(module, name)
    module.register_parameter(name, parameter)
