"""Published crystal models, checkpoints of Lightning, read as the models of this package.

Three kinds: a VAE, a latent diffusion model (LDM, before or after reinforcement learning) and a property predictor.
Parameters have the same names here. Sizes follow from the shapes of the weights; the hyper-parameters say what shapes
do not: heads, what the model is conditioned on, the predictor's targets. What this relies on is listed in
docs/published-crystals.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from atomrl.checkpoints.lightning_file import LightningFile, read_lightning
from atomrl.networks.conditions import Condition
from atomrl.networks.crystal_vae import CrystalVAEConfig
from atomrl.networks.dit import DiTConfig
from atomrl.networks.lora import BASE, DOWN, UP, merged
from atomrl.util.errors import UserError, hinted
from atomrl.util.inert_pickle import Held

WIDTH_OF_A_HEAD = 64
"""In all published sizes: what the number of heads follows from where a file does not say it."""

VAE, DENOISER, CONDITIONS, STD = "vae.", "denoiser.", "condition_module.", "latent_std"
"""Of names in the state of an LDM."""

ADAPTED = "denoiser.base_model.model."
"""Of names in the state of an LDM with adapters (LoRA), as peft calls them."""

ATTENTION = ".attn."
"""Of names of what belongs to a block's attention."""

LORA, RANK, ALPHA = "lora_configs", "r", "lora_alpha"
"""Hyper-parameters of an LDM that say of its adapters what shapes do not, by peft's names."""

TUNED, REWARD = "ldm.", "reward_fn."
"""Of names in the state of a tuned one: of the LDM, and of networks in its reward, which are not the model's."""

OF_VAE = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
"""Of names in the state of a VAE."""

HEADS = ("num_heads", "nhead")
"""What the number of heads is called."""

TRANSFORMER: Mapping[str, Any] = {
    "norm_first": True,
    "activation": "gelu",
    "activation_relu_or_gelu": 2,
    "index_embedding": "sinusoidal",
    "index_embedding_type": "sinusoidal",
    "max_len": 2048,
}
"""What a VAE's halves are, as a configuration says it, and as the published network and torch's layers in it do (2: by
GELU); the index embedding's angles are i pi / max_len^(2k/d)."""

ONLY: Mapping[str, Mapping[str, Any]] = {
    "encoder": TRANSFORMER,
    "decoder": TRANSFORMER,
    "vae": TRANSFORMER,
    "diffusion_configs": {
        "noise_schedule": "linear",
        "learn_sigma": True,
        "rescale_learned_sigmas": True,
        "predict_xstart": False,
        "diffusion_steps": 1000,
    },
    LORA: {"use_rslora": False, "use_dora": False, "fan_in_fan_out": False, "bias": "none"},
}
"""Hyper-parameters by section, where they stand: only these values suit what is here."""

KINDS = {"float": "value", "composition": "composition", "chemical_system": "chemical_system"}
"""What a condition is called, and its kind here."""

PERCEPTRONS: Mapping[tuple[int, ...], tuple[int, ...]] = {
    (0, 1, 4, 5, 8): (0, 1, 4, 5, 8),
    (0, 1, 3, 4, 6): (0, 1, 4, 5, 8),
}
"""Places of a predictor's layers, with and without drop-out between them, and their places here: linear, LayerNorm,
linear, LayerNorm, linear."""


@dataclass(frozen=True)
class PublishedCrystal:
    """One file: which kind of model, and its weights by the names that they have here.

    Attributes:
        file: that they come from.
        kind: `vae`, `ldm` or `predictor`.
        names: {name here: name in the file} of all that belongs to the model.
        left_out: names in the file of what does not.
    """

    file: LightningFile
    kind: str
    names: Mapping[str, str]
    left_out: tuple[str, ...]

    @property
    def origin(self) -> str:
        """For messages."""
        return str(self.file.path)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors below a prefix, which is taken off."""
        below = {name.removeprefix(prefix): there for name, there in self.names.items() if name.startswith(prefix)}
        found = self.file.tensors(below.values())
        return {name: found[there] for name, there in below.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a weight.

        Raises:
            UserError: the file has none of this name, or it is no matrix.
        """
        if name not in self.names:
            raise UserError(f"{self.origin} holds no weight {name}: it is a model of another architecture")
        shape = self.file.weights[self.names[name]].shape
        if len(shape) != 2:
            raise UserError(
                f"{self.origin}: {name} has shape {shape} and is no matrix: a model of another architecture"
            )
        return shape

    def count(self, prefix: str) -> int:
        """How many numbers stand behind a prefix, e.g. of blocks."""
        return len({name.removeprefix(prefix).partition(".")[0] for name in self.names if name.startswith(prefix)})

    def heads(self, section: str, width: int) -> int:
        """Of the attention in a part of the model.

        Raises:
            UserError: the file says several numbers, or what is none, or nothing and the width is that of no published
                model.
        """
        parts = _parts(self.file.hyper_parameters.get(section))
        found = [part[name] for part in parts for name in HEADS if part.get(name) is not None]
        said = sorted(set(map(str, found)))
        if len(said) == 1 and type(heads := found[0]) is int:
            return heads
        if said or width % WIDTH_OF_A_HEAD:
            many = f"say {', '.join(said)}" if said else "do not say how many"
            raise UserError(f"{self.origin}: its hyper-parameters {many} heads, for {section} of width {width}")
        return width // WIDTH_OF_A_HEAD


def read_published_crystal(path: Path) -> PublishedCrystal:
    """Find out what a checkpoint holds; its tensors stay unread.

    Raises:
        UserError: as `read_lightning`, or no crystal model, or hyper-parameters of another architecture.
    """
    file = read_lightning(path)
    tuned = any(name.startswith(TUNED + DENOISER) for name in file.weights)
    left_out = tuple(name for name in file.weights if tuned and name.startswith(REWARD))
    names: dict[str, str] = {}
    for name in file.weights:
        if name not in left_out:
            here = (name.removeprefix(TUNED) if tuned else name).replace(ADAPTED, DENOISER, 1).replace(BASE, "")
            if here in names:
                names[here] = _same(file, names[here], name)
            names.setdefault(here, name)
    kind = _kind(names, path)
    for section, wanted in ONLY.items():
        _require(file, section, wanted)
    return PublishedCrystal(file, kind, names, left_out)


def vae_config(published: PublishedCrystal, prefix: str) -> CrystalVAEConfig:
    """Sizes of the VAE below a prefix.

    Raises:
        UserError: a weight is missing, or a size is none that this package can make.
    """
    elements, width = published.shape(f"{prefix}encoder.atom_type_embedder.weight")
    layers, heads = f"{prefix}encoder.transformer.layers.", published.heads("vae" if prefix else "encoder", width)
    with hinted(f"; the file is {published.origin}"):
        return CrystalVAEConfig(
            width=width,
            heads=heads,
            feedforward=published.shape(f"{layers}0.linear1.weight")[0],
            layers=published.count(layers),
            latent=published.shape(f"{prefix}post_quant_conv.weight")[1],
            elements=elements,
        )


def denoiser_config(published: PublishedCrystal) -> DiTConfig:
    """Sizes of an LDM's denoiser.

    Raises:
        UserError: as `vae_config`.
    """
    hidden, latent = published.shape(f"{DENOISER}x_embedder.weight")
    inner = published.shape(f"{DENOISER}blocks.0.mlp.fc1.weight")[0]
    if inner % hidden:
        raise UserError(f"{published.origin}: {inner} features inside of a block are no multiple of its {hidden}")
    heads = published.heads("denoiser", hidden)
    with hinted(f"; the file is {published.origin}"):
        return DiTConfig(
            latent=latent,
            hidden=hidden,
            depth=published.count(f"{DENOISER}blocks."),
            heads=heads,
            mlp_ratio=inner // hidden,
            layout="published",
        )


def denoiser_weights(published: PublishedCrystal) -> dict[str, Tensor]:
    """Of an LDM's denoiser; its adapters, if it has some, are merged.

    Raises:
        UserError: the hyper-parameters do not say what the adapters are multiplied by, or not as here; or one does not
            fit its layer.
    """
    weights = published.part(DENOISER)
    ranks = {len(weight) for name, weight in weights.items() if DOWN in name}
    if not ranks:
        return weights
    said = _section(published.file.hyper_parameters.get(LORA))
    alpha, rank = said.get(ALPHA), said.get(RANK)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not rank or list(ranks) != [rank]:
        raise UserError(
            f"{published.origin} holds adapters of rank {', '.join(map(str, sorted(ranks)))}, and its hyper-parameters "
            f"say {LORA}.{RANK}={rank!r} and {LORA}.{ALPHA}={alpha!r}: what they are multiplied by is not known; merge "
            "them first, by peft's merge_and_unload"
        )
    used = [name.replace(DOWN, UP) for name in weights if DOWN in name and ATTENTION in name]
    if whole := [name.partition(UP)[0] for name in used if name not in weights or weights[name].any()]:
        raise UserError(
            f"{published.origin} holds an adapter of {whole[0].replace(BASE, '')}: peft up to 0.21.2 counts that of an "
            "attention's output twice, and the file does not say which release trained it; merge them first, by "
            "merge_and_unload of that one"
        )
    if patterns := [name for name in ("rank_pattern", "alpha_pattern") if said.get(name)]:
        raise UserError(f"{published.origin}: {LORA}.{patterns[0]} makes adapters differ, which cannot be imported")
    return merged(weights, alpha / rank, published.origin)


def conditions_of(published: PublishedCrystal) -> tuple[list[Condition], float]:
    """What an LDM is conditioned on, and how often training dropped it; none for an unconditional one.

    Raises:
        UserError: the hyper-parameters do not say it, or say what is not known here.
    """
    if not any(name.startswith(CONDITIONS) for name in published.names):
        return [], 0.0
    said = _section(published.file.hyper_parameters.get(CONDITIONS.removesuffix(".")))
    kinds, drop_prob = said.get("condition_type"), said.get("drop_prob")
    if not isinstance(kinds, dict) or not isinstance(drop_prob, float | int):
        raise UserError(
            f"{published.origin} is conditional, but its hyper-parameters do not say on what: they lack "
            "condition_module with condition_type and drop_prob"
        )
    stats = said.get("stats")
    return [_condition(name, kind, stats, published.origin) for name, kind in kinds.items()], float(drop_prob)


def perceptron_of(published: PublishedCrystal) -> dict[str, Tensor]:
    """The weights of a predictor beside its VAE, by their places in `networks.predictor.PropertyHead`.

    Raises:
        UserError: they are not those of one perceptron.
    """
    others = [name for name in published.names if not name.startswith(VAE)]
    layers = {name.rpartition(".")[0] for name in others}
    paths = {layer.rpartition(".")[0] for layer in layers}
    places = sorted(int(place) for layer in layers if (place := layer.rpartition(".")[2]).isdecimal())
    here = PERCEPTRONS.get(tuple(places))
    if len(paths) != 1 or len(places) < len(layers) or here is None:
        raise UserError(
            f"{published.origin}: beside its VAE it holds {', '.join(others[:3])}, and so on: no perceptron of three "
            "linear layers with LayerNorm, SiLU and drop-out between them"
        )
    moved = dict(zip(map(str, places), here, strict=True))
    found = published.file.tensors(published.names[name] for name in others)
    weights: dict[str, Tensor] = {}
    for name in others:
        layer, _, parameter = name.rpartition(".")
        weights[f"layers.{moved[layer.rpartition('.')[2]]}.{parameter}"] = found[published.names[name]]
    return weights


def targets_of(published: PublishedCrystal) -> dict[str, tuple[float, float]]:
    """{property: mean and standard deviation in its training set} of a predictor.

    Raises:
        UserError: the hyper-parameters do not say it.
    """
    said = published.file.hyper_parameters.get("target_conditions")
    if not isinstance(said, dict) or not said:
        raise UserError(f"{published.origin}: its hyper-parameters do not say what it predicts, target_conditions")
    return {
        str(name): (0.0, 1.0) if stats is None else _stats(name, stats, published.origin)
        for name, stats in said.items()
    }


def _kind(names: Mapping[str, str], path: Path) -> str:
    """Which model has weights of these names."""
    known: dict[str, tuple[str, ...]] = {"vae": OF_VAE, "ldm": (DENOISER, VAE, CONDITIONS, STD)}
    for kind, prefixes in known.items():
        if any(name.startswith(prefixes[0]) for name in names):
            if strange := sorted(name for name in names if not name.startswith(prefixes)):
                raise UserError(
                    f"{path} holds a crystal {kind.upper()} and also {', '.join(strange[:3])}; known are only "
                    f"names that begin with {', '.join(prefixes)}"
                )
            return kind
    if any(name.startswith(VAE) for name in names):
        return "predictor"
    there = sorted({name.partition(".")[0] for name in names})
    raise UserError(
        f"{path} holds no published crystal model: its weights are {', '.join(there[:4]) or 'none'}, not denoiser, "
        "encoder or vae"
    )


def _same(file: LightningFile, one: str, other: str) -> str:
    """The name of one of two tensors that should be the same."""
    tensors = file.tensors([one, other])
    if not tensors[one].equal(tensors[other]):
        raise UserError(f"{file.path}: {one} and {other} are the same part of the model and have different weights")
    return one


def _require(file: LightningFile, section: str, wanted: Mapping[str, Any]) -> None:
    """Raise UserError for a hyper-parameter, of a section or inside of it, of a model which is none here."""
    for part in _parts(file.hyper_parameters.get(section)):
        for name, value in wanted.items():
            found = part.get(name, value)
            if isinstance(found, str | bool | int | float | None) and found != value:
                raise UserError(f"{file.path}: {section}.{name}={found!r}, and only {value!r} can be imported")


def _section(value: Any) -> dict[str, Any]:
    """Hyper-parameters of a part: a mapping, or what an object holds; nothing else says anything."""
    if isinstance(value, Held):
        return value.state if isinstance(value.state, dict) else value.entries
    return value if isinstance(value, dict) else {}


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """What a mapping or an object says, and all mappings and modules inside of it, each once."""
    waiting, seen = [value], set[int]()
    while waiting:
        part = waiting.pop()
        said = _section(part)
        if id(part) in seen or not said:
            continue
        seen.add(id(part))
        yield said
        waiting += said.values() if isinstance(part, dict) else _section(said.get("_modules")).values()


def _condition(name: str, kind: Any, stats: Any, origin: str) -> Condition:
    """One condition."""
    if kind not in KINDS:
        raise UserError(f"{origin}: condition {name} is of the kind {kind!r}, and only {', '.join(KINDS)} are known")
    if kind != "float":
        return Condition(name=name, kind=KINDS[kind])
    mean, std = _stats(name, stats.get(name) if isinstance(stats, dict) else None, origin)
    return Condition(name=name, kind=KINDS[kind], mean=mean, std=std)


def _stats(name: object, stats: Any, origin: str) -> tuple[float, float]:
    """Mean and standard deviation of a property."""
    mean, std = (stats.get(key) if isinstance(stats, dict) else None for key in ("mean", "std"))
    if not isinstance(mean, float | int) or not isinstance(std, float | int) or not std > 0:
        raise UserError(f"{origin}: its hyper-parameters have no mean and positive std of {name}, but {stats!r}")
    return float(mean), float(std)
