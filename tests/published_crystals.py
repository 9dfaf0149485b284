"""Crystal models in checkpoints as they are published: Lightning's, with foreign objects in the hyper-parameters."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from crystal_models import GoldenLDM, golden_ldm, golden_vae
from omegaconf import OmegaConf
from pymatgen.analysis.structure_matcher import StructureMatcher
from torch import Tensor, nn

from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.networks.predictor import CrystalPredictor, PredictorConfig, PropertyHead

TRANSFORMER = {"activation": "gelu", "norm_first": True, "index_embedding": "sinusoidal"}
DIFFUSION = {
    "timestep_respacing": "",
    "predict_xstart": False,
    "rescale_learned_sigmas": True,
    "learn_sigma": True,
    "diffusion_steps": 1000,
}
CONDITION = {
    "condition_type": {"band_gap": "float"},
    "stats": {"band_gap": {"mean": 0.797, "std": 1.408}},
    "hidden_dim": 48,
    "drop_prob": 0.2,
}
STD = 1.7


class Index(nn.Module):
    """Stands for the published embedding of an atom's index."""

    def __init__(self, max_len: int = 2048) -> None:
        super().__init__()
        self.max_len = max_len


class Encoder(nn.Module):
    """Stands for a published network in the hyper-parameters, which pickle stores as an object of its class."""

    def __init__(
        self,
        vae: CrystalVAE,
        index: str = "sinusoidal",
        max_len: int = 2048,
        norm_first: bool = True,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.index_embedding_type, self.index_embedding = index, Index(max_len)
        layer = nn.TransformerEncoderLayer(
            vae.config.width, vae.config.heads, activation=activation or nn.GELU("tanh"), norm_first=norm_first
        )
        self.transformer = nn.TransformerEncoder(layer, 1, None, False)


class Adapted(nn.Module):
    """Stands for a layer with adapters in a denoiser in the hyper-parameters, where peft has put its own class."""


PLACES = {
    "src.vae_module.positional_embeddings": Index,
    "src.vae_module.encoders.transformer": Encoder,
    "peft.tuners.lora.layer": Adapted,
}
"""Modules of the published classes, and what stands for these."""

for _module, _class in PLACES.items():
    _class.__module__ = _module


@contextmanager
def foreign() -> Iterator[None]:
    """Where the published classes can be found, as when a checkpoint was written; not when it is read."""
    made = {name: ModuleType(name) for name in PLACES}
    for name, found in PLACES.items():
        setattr(made[name], found.__name__, found)
    packages = {package for name in PLACES for package in accumulate(name.split("."), "{}.{}".format)}
    made |= {name: ModuleType(name) for name in packages - {*made, *sys.modules}}  # pickle imports them too
    before = {name: sys.modules[name] for name in made if name in sys.modules}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]
        sys.modules.update(before)


def write(path: Path, weights: Mapping[str, Tensor], parameters: Mapping[str, Any], **other: Any) -> Path:
    """A checkpoint of Lightning."""
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 1e-4}]}
    held = {
        "epoch": 7,
        "global_step": 1234,
        "pytorch-lightning_version": "2.5.1",
        "state_dict": nn.Module.state_dict(nn.Module()) | dict(weights),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val/total_loss'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [optimizer],
        "lr_schedulers": [{"factor": 1.0, "base_lrs": [1e-4]}],
        "hparams_name": "kwargs",
        "hyper_parameters": dict(parameters),
        **other,
    }
    with foreign():
        torch.save(held, path)
    return path


def trained(**other: Any) -> dict[str, Any]:
    """Hyper-parameters that every kind has: what Hydra made of `_partial_` and of the augmentation."""
    return {
        "optimizer": functools.partial(torch.optim.AdamW, lr=1e-4, weight_decay=0.0),
        "scheduler": functools.partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0),
        "augmentation": OmegaConf.create({"translate": True, "rotate": True}),
        **other,
    }


def vae_file(path: Path, vae: CrystalVAE, objects: bool = True, **other: Any) -> Path:
    """A published VAE; its networks stand in the hyper-parameters as objects or as configurations."""
    sizes = {"d_model": vae.config.width, "nhead": vae.config.heads, **TRANSFORMER}
    parts = [Encoder(vae) if objects else OmegaConf.create(sizes) for _ in range(2)]
    own = {"encoder": parts[0], "decoder": parts[1], "latent_dim": 8, "structure_matcher": StructureMatcher()}
    return write(path, vae.state_dict(), trained(**{**own, **other}))


def ldm_weights(golden: GoldenLDM | None = None, vae: CrystalVAE | None = None) -> dict[str, Tensor]:
    """State of a published diffusion model: the golden one, with the VAE if one is given."""
    golden = golden or golden_ldm()
    parts = {"denoiser.": golden.denoiser, "condition_module.": golden.conditions, **({"vae.": vae} if vae else {})}
    state = {prefix + name: value for prefix, part in parts.items() for name, value in part.state_dict().items()}
    return {**state, "latent_std": torch.tensor(STD)}


def ldm_parameters(**other: Any) -> dict[str, Any]:
    """Hyper-parameters of a published diffusion model, of the golden sizes."""
    sizes = {"latent_dim": 8, "depth": 2, "hidden_size": 48, "num_heads": 4, "mlp_ratio": 4, "learn_sigma": True}
    own = {
        "denoiser": OmegaConf.create(sizes),
        "normalize_latent": True,
        "vae_ckpt_path": "ckpts/mp_20/vae/dng_m4owq4i5_v0.ckpt",
        "ldm_ckpt_path": None,
        "diffusion_configs": OmegaConf.create(DIFFUSION),
        "condition_module": OmegaConf.create(CONDITION),
        "vae": OmegaConf.create({"nhead": 4}),
        "lora_configs": None,
    }
    return trained(**{**own, **other})


def with_adapters(layers: Sequence[str], rank: int = 2, seed: int = 3) -> dict[str, Tensor]:
    """State of a published diffusion model whose denoiser has adapters beside these layers, by peft's names."""
    state = ldm_weights(vae=golden_vae().vae)
    for layer in layers:
        weight, bias = (state.pop(f"denoiser.{layer}.{kind}") for kind in ("weight", "bias"))
        down, up = (
            torch.randn(*shape, generator=torch.Generator().manual_seed(seed + place)) / 4
            for place, shape in enumerate(((rank, weight.shape[1]), (len(weight), rank)))
        )
        state |= {
            f"denoiser.{layer}.base_layer.weight": weight,
            f"denoiser.{layer}.base_layer.bias": bias,
            f"denoiser.{layer}.lora_A.default.weight": down,
            f"denoiser.{layer}.lora_B.default.weight": up,
        }
    return {name.replace("denoiser.", "denoiser.base_model.model.", 1): tensor for name, tensor in state.items()}


def write_downloads(folder: Path) -> None:
    """Files by their published names: a VAE and an unconditional diffusion model, of the golden sizes."""
    files = {"vae": folder / "mp_20/vae/dng_m4owq4i5_v0.ckpt", "ldm": folder / "mp_20/ldm/ldm_null_4tfw67aq.ckpt"}
    for file in files.values():
        file.parent.mkdir(parents=True)
    vae_file(files["vae"], golden_vae().vae)
    unconditional = {name: tensor for name, tensor in ldm_weights().items() if not name.startswith("condition")}
    write(files["ldm"], unconditional, ldm_parameters(condition_module=None))


def predictor() -> CrystalPredictor:
    """Random weights upon the golden VAE."""
    torch.manual_seed(0)
    config = PredictorConfig(hidden=(10, 20), pooling="sum")
    vae = golden_vae().vae
    head = PropertyHead(config.inputs(vae.config), ("dft_band_gap",), config)
    head.mean.fill_(0.797)
    head.std.fill_(1.408)
    return CrystalPredictor(vae, head, config)


def predictor_file(path: Path, **other: Any) -> Path:
    """That predictor as it is published."""
    model = predictor()
    state = {f"vae.{name}": value for name, value in model.vae.state_dict().items()}
    state |= {
        name.replace("layers", "mlp"): value for name, value in model.head.layers.state_dict(prefix="mlp.").items()
    }
    own = {
        "target_conditions": {"dft_band_gap": {"mean": 0.797, "std": 1.408}},
        "reduce": "sum",
        "use_encoder_features": True,
        "vae": {"encoder": {"nhead": 4}},
    }
    return write(path, state, trained(**{**own, **other}))
