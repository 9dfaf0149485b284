"""`atomrl import chemeleon2`: a published crystal model becomes a folder of this package."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import torch

from atomrl.checkpoints.crystal import CrystalBackbone, save_crystal_backbone
from atomrl.checkpoints.folder import fill, read_sizes
from atomrl.checkpoints.predictor import save_predictor
from atomrl.checkpoints.published_crystal import (
    CONDITIONS,
    OF_VAE,
    STD,
    VAE,
    PublishedCrystal,
    conditions_of,
    denoiser_config,
    denoiser_weights,
    perceptron_of,
    read_published_crystal,
    targets_of,
    vae_config,
)
from atomrl.checkpoints.vae import load_vae, save_vae
from atomrl.networks.conditions import ConditionModule
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.networks.dit import DiT
from atomrl.networks.predictor import CrystalPredictor, PredictorConfig, PropertyHead
from atomrl.util.errors import UserError, hinted

AVERAGED = "EMA"
"""In the names of callbacks that average weights."""

MP_20 = "mp_20_sizes.json"
"""Asset: atoms per crystal of MP-20's training split, as published."""


def import_crystal(path: Path, output: Path, vae: Path | None = None, sizes: Path | None = None) -> str:
    """Write the folder of a model out of a published checkpoint.

    Args:
        path: the checkpoint: of a VAE, a latent diffusion model (tuned or not) or a property predictor.
        output: for model.safetensors and model.json.
        vae: where the VAE of a diffusion model is that does not hold it: its checkpoint, or a folder.
        sizes: JSON, {atoms: count} of the training set of a diffusion model; None: MP-20's, as published.

    Returns:
        What was imported, in words.

    Raises:
        UserError: the file is damaged, asks for code or holds another kind of model; an option that its model does not
            read, or one that it lacks.
    """
    published = read_published_crystal(path)
    if published.kind != "ldm" and (vae is not None or sizes is not None):
        raise UserError(f"{path} holds a {published.kind}: --vae and --sizes are for a latent diffusion model")
    card = {"origin": f"published as {path.name}"}
    if published.kind == "vae":
        made = vae_in(published)
        save_vae(output, made, card)
        words = f"crystal VAE, {made.config.width} features, {made.config.layers} layers"
    elif published.kind == "ldm":
        backbone = backbone_in(published, vae, sizes)
        save_crystal_backbone(output, backbone, card)
        words = _described(backbone, published, sizes)
    else:
        predictor = predictor_in(published)
        save_predictor(output, predictor, card)
        words = f"predictor of {', '.join(predictor.targets)}"
    averages = [name for name in published.file.callbacks if AVERAGED in name]
    return words + (f"; not read: the average of the callback {averages[0]}, state_dict counts" if averages else "")


def vae_in(published: PublishedCrystal) -> CrystalVAE:
    """The VAE of a checkpoint, of whatever kind.

    Raises:
        UserError: it holds none, or one of another architecture.
    """
    prefix = "" if published.kind == "vae" else VAE
    vae = CrystalVAE(vae_config(published, prefix))
    weights = published.part(prefix)
    fill(vae, {name: tensor for name, tensor in weights.items() if name.startswith(OF_VAE)}, published.origin)
    return vae.eval()


def backbone_in(published: PublishedCrystal, vae: Path | None = None, sizes: Path | None = None) -> CrystalBackbone:
    """The backbone that a latent diffusion model is; arguments and errors as of `import_crystal`."""
    decoder = _vae_of_ldm(published, vae)
    denoiser = DiT(denoiser_config(published))
    if decoder.config.latent != denoiser.config.latent:
        raise UserError(
            f"{published.origin}: its denoiser has {denoiser.config.latent} latent channels, the VAE "
            f"{decoder.config.latent}"
        )
    fill(denoiser, denoiser_weights(published), published.origin)
    entries, drop_prob = conditions_of(published)
    conditions = None
    if entries:
        with hinted(f"; the file is {published.origin}"):
            conditions = ConditionModule(entries, denoiser.config.hidden, drop_prob)
        fill(conditions, published.part(CONDITIONS), published.origin)
    return CrystalBackbone(decoder, denoiser, _latent_std(published), _sizes(sizes), conditions, published.origin)


def predictor_in(published: PublishedCrystal) -> CrystalPredictor:
    """The predictor of a checkpoint.

    Raises:
        UserError: it holds one of another architecture, or does not say what it predicts.
    """
    vae, targets, weights = vae_in(published), targets_of(published), perceptron_of(published)
    said = published.file.hyper_parameters
    first, second = (len(weights[f"layers.{place}.weight"]) for place in (0, 4))
    options = {"pooling": said.get("reduce"), "features": said.get("use_encoder_features")}
    if options["pooling"] not in ("mean", "sum") or not isinstance(options["features"], bool):
        raise UserError(
            f"{published.origin}: its hyper-parameters reduce={options['pooling']!r}, "
            f"use_encoder_features={options['features']!r} must be mean or sum, and true or false"
        )
    config = PredictorConfig.read_card({**options, "hidden": [first, second]})
    head = PropertyHead(config.inputs(vae.config), tuple(targets), config)
    mean, std = (torch.tensor(column, dtype=torch.float64) for column in zip(*targets.values(), strict=True))
    fill(head, {**weights, "mean": mean, "std": std}, published.origin)
    return CrystalPredictor(vae, head, config)


def _described(backbone: CrystalBackbone, published: PublishedCrystal, sizes: Path | None) -> str:
    """A backbone in words."""
    config, conditions = backbone.denoiser.config, backbone.conditions
    asked = f", conditioned on {', '.join(conditions.encoders)}" if conditions is not None else ""
    drawn = f"sizes as in {sizes}" if sizes else "sizes as in MP-20, --sizes gives others"
    left = f"; left out: the reward's {len(published.left_out)} tensors" if published.left_out else ""
    return f"crystal backbone, {config.hidden} features, {config.depth} blocks{asked}; {drawn}{left}"


def _vae_of_ldm(published: PublishedCrystal, given: Path | None) -> CrystalVAE:
    """The VAE in the file of a diffusion model, or where the user says."""
    inside = any(name.startswith(VAE) for name in published.names)
    if inside and given is not None:
        raise UserError(f"{published.origin} holds its VAE: leave out --vae {given}")
    if inside:
        return vae_in(published)
    if given is None:
        named = published.file.hyper_parameters.get("vae_ckpt_path")
        which = f", only the name of its file, {named}" if isinstance(named, str) else ""
        raise UserError(f"{published.origin} does not hold its VAE{which}: give --vae, that checkpoint or a folder")
    if given.is_dir():
        return load_vae(given)
    other = read_published_crystal(given)
    if other.kind == "vae":
        return vae_in(other)
    raise UserError(f"--vae {given} holds a {other.kind}, not a VAE")


def _latent_std(published: PublishedCrystal) -> float:
    """What the latents of a diffusion model are divided by."""
    if STD not in published.names:
        if published.file.hyper_parameters.get("normalize_latent") is False:
            return 1.0
        raise UserError(f"{published.origin} lacks {STD} in its state_dict, what its latents are divided by")
    value = published.part(STD)[""]
    if value.numel() != 1 or not 0 < float(value) < torch.inf:
        raise UserError(f"{published.origin}: {STD} must be one positive number, got {value.tolist()}")
    return float(value)


def _sizes(path: Path | None) -> Mapping[int, int]:
    """Atoms per crystal of the training set."""
    return read_sizes(Path(str(resources.files("atomrl") / "assets" / MP_20)) if path is None else path)
