"""Crystal backbones on disk: VAE, denoiser, conditions, latent scale and sizes in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from atomrl.checkpoints.folder import config_from, fill, read_folder, sizes_entry, sizes_of, write_folder
from atomrl.errors import UserError
from atomrl.networks.conditions import Condition, ConditionModule
from atomrl.networks.crystal_vae import CrystalVAE, CrystalVAEConfig
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.policies.crystal import CrystalPolicy, Sampling


@dataclass(frozen=True)
class CrystalBackbone:
    """A crystal diffusion model and what goes with it.

    Attributes:
        vae: between crystals and latents.
        denoiser: of latents.
        latent_std: the denoiser's latents are the VAE's over this.
        sizes: histogram of atoms per crystal in the training set.
        conditions: None if unconditional.
        origin: where it came from, for logs.
    """

    vae: CrystalVAE
    denoiser: DiT
    latent_std: float
    sizes: Mapping[int, int]
    conditions: ConditionModule | None = None
    origin: str = "memory"

    def policy(self, sampling: Sampling | None = None) -> CrystalPolicy:
        """The policy that samples from it; shares its weights."""
        return CrystalPolicy(self.denoiser, self.vae, self.latent_std, self.conditions, sampling)


def save_crystal_backbone(folder: Path, backbone: CrystalBackbone, card: Mapping[str, Any]) -> None:
    """Write model.safetensors and model.json; `card` holds whatever else should be known about the weights.

    Raises:
        UserError: the folder cannot be written.
    """
    conditions = backbone.conditions
    entries = {
        "vae": asdict(backbone.vae.config),
        "denoiser": asdict(backbone.denoiser.config),
        "latent_std": backbone.latent_std,
        "sizes": sizes_entry(backbone.sizes),
        "conditions": [] if conditions is None else [asdict(condition) for condition in conditions.conditions],
        "drop_prob": 0.0 if conditions is None else conditions.drop_prob,
        **card,
    }
    write_folder(folder, _modules(backbone.vae, backbone.denoiser, conditions).state_dict(), entries)


def load_crystal_backbone(folder: Path) -> CrystalBackbone:
    """Load a backbone that `save_crystal_backbone` wrote.

    Raises:
        UserError: nothing there, truncated, entries missing or unknown, or tensors that do not fit the model.
    """
    origin = str(folder)
    card, weights = read_folder(folder, ("vae", "denoiser", "latent_std", "conditions", "drop_prob"))
    latent_std = card["latent_std"]
    if not isinstance(latent_std, (int, float)) or not latent_std > 0:
        raise UserError(f"{origin}: latent_std={latent_std!r} must be a positive number")
    vae = CrystalVAE(config_from(CrystalVAEConfig, card["vae"], origin))
    denoiser = DiT(config_from(DiTConfig, card["denoiser"], origin))
    if vae.config.latent != denoiser.config.latent:
        raise UserError(
            f"{origin}: the VAE has {vae.config.latent} latent channels, the denoiser {denoiser.config.latent}"
        )
    conditions = None
    if card["conditions"]:
        specs = [config_from(Condition, entries, origin) for entries in card["conditions"]]
        conditions = ConditionModule(specs, denoiser.config.hidden, float(card["drop_prob"]))
    fill(_modules(vae, denoiser, conditions), weights, origin)
    return CrystalBackbone(vae, denoiser, float(latent_std), sizes_of(card, origin), conditions, origin)


def _modules(vae: CrystalVAE, denoiser: DiT, conditions: ConditionModule | None) -> nn.ModuleDict:
    """All that has weights, under the names they have in the file: `vae.`, `denoiser.`, `condition_module.`."""
    modules: dict[str, nn.Module] = {"vae": vae, "denoiser": denoiser}
    if conditions is not None:
        modules["condition_module"] = conditions
    return nn.ModuleDict(modules)
