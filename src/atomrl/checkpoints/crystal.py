"""Crystal backbones on disk: VAE, denoiser, conditions, latent scale and sizes in one folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from atomrl.checkpoints.folder import UNLIKE_CARD, config_from, fill, sizes_entry, sizes_of, write_folder
from atomrl.checkpoints.known_crystals import known_entries, known_of
from atomrl.checkpoints.lora import LORA, plain_weights
from atomrl.checkpoints.stored import AVERAGED, Stored, read_stored
from atomrl.networks.conditions import Condition, ConditionModule
from atomrl.networks.crystal_vae import CrystalVAE, CrystalVAEConfig
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.networks.lora_options import LoraOptions
from atomrl.policies.crystal import CrystalPolicy, Sampling
from atomrl.policies.crystal_conditioning import CrystalConditioning, KnownCrystals
from atomrl.util.errors import UserError


@dataclass(frozen=True)
class CrystalBackbone:
    """A crystal diffusion model and what goes with it.

    Attributes:
        vae: between crystals and latents.
        denoiser: of latents.
        latent_std: the denoiser's latents are the VAE's over this.
        sizes: histogram of atoms per crystal in the training set.
        conditions: None if unconditional.
        known: what its training crystals have of the conditions; None: nothing says so.
        origin: where it came from, for logs.
        sampling: how its policy walks.
        lora: the adapters that its denoiser has while a run trains it; None: none. A loaded one never has any.
    """

    vae: CrystalVAE
    denoiser: DiT
    latent_std: float
    sizes: Mapping[int, int]
    conditions: ConditionModule | None = None
    origin: str = "memory"
    sampling: Sampling = field(default_factory=Sampling)
    known: KnownCrystals | None = None
    lora: LoraOptions | None = None

    @property
    def conditioning(self) -> CrystalConditioning | None:
        """What prompts ask of it; None: it is unconditional."""
        return None if self.conditions is None else CrystalConditioning(self.conditions.conditions, self.known)

    @property
    def card(self) -> dict[str, Any]:
        """What a checkpoint says of it, so that it can be loaded alone."""
        conditions = self.conditions
        return {
            "vae": self.vae.config.model_dump(),
            "denoiser": self.denoiser.config.model_dump(),
            "latent_std": self.latent_std,
            "sizes": sizes_entry(self.sizes),
            "conditions": [] if conditions is None else [condition.model_dump() for condition in conditions.conditions],
            "drop_prob": 0.0 if conditions is None else conditions.drop_prob,
            **known_entries(self.known),
            **({} if self.lora is None else {LORA: self.lora.model_dump()}),
            "origin": self.origin,
        }

    def policy(self, sampling: Sampling | None = None) -> CrystalPolicy:
        """The policy that samples from it, by `self.sampling` if None is given; shares its weights."""
        return CrystalPolicy(self.denoiser, self.vae, self.latent_std, self.conditions, sampling or self.sampling)


def save_crystal_backbone(folder: Path, backbone: CrystalBackbone, card: Mapping[str, Any]) -> None:
    """Write model.safetensors and model.json; `card` holds whatever else should be known about the weights.

    Raises:
        UserError: the folder cannot be written.
    """
    modules = _modules(backbone.vae, backbone.denoiser, backbone.conditions)
    write_folder(folder, modules.state_dict(), {**backbone.card, **card})


def load_crystal_backbone(where: str | Path) -> CrystalBackbone:
    """Load a crystal backbone.

    Args:
        where: name of a shipped backbone; a folder that `save_crystal_backbone` wrote; or a checkpoint (.pth) of a run,
            of which the denoiser's averaged weights are taken.

    Raises:
        UserError: nothing there, truncated, entries missing, unknown or out of range, tensors that do not fit the
            model, or a model of molecules.
    """
    return crystal_backbone_of(read_stored(str(where)))


def crystal_backbone_of(stored: Stored) -> CrystalBackbone:
    """The crystal backbone of what was read.

    Raises:
        UserError: as `load_crystal_backbone`.
    """
    card, origin = stored.card, stored.origin
    for entry in ("vae", "denoiser", "latent_std", "conditions", "drop_prob"):
        if entry not in card:
            raise UserError(
                f"{origin} is not a crystal backbone: its card lacks the entry '{entry}'; give a model of crystals"
            )
    latent_std = card["latent_std"]
    if not isinstance(latent_std, (int, float)) or not 0 < latent_std < math.inf:
        raise UserError(f"{origin}: latent_std={latent_std!r} must be a positive number")
    vae = CrystalVAE(config_from(CrystalVAEConfig, card["vae"], origin))
    denoiser = DiT(config_from(DiTConfig, card["denoiser"], origin))
    if vae.config.latent != denoiser.config.latent:
        raise UserError(
            f"{origin}: the VAE has {vae.config.latent} latent channels, the denoiser {denoiser.config.latent}"
        )
    conditions = _conditions(card, denoiser.config.hidden, origin)
    fill(_modules(vae, denoiser, conditions), _weights(stored), origin, UNLIKE_CARD)
    known = None if conditions is None else known_of(card, conditions.conditions, origin)
    sizes = sizes_of(card, origin)
    return CrystalBackbone(vae, denoiser, float(latent_std), sizes, conditions, origin, known=known)


def _conditions(card: Mapping[str, Any], hidden: int, origin: str) -> ConditionModule | None:
    """The condition module of a card, still without its weights; None: it is unconditional."""
    entries, drop_prob = card["conditions"], card["drop_prob"]
    if not isinstance(entries, list):
        raise UserError(f"{origin}: its card's conditions={entries!r} is not a list of conditions")
    if not isinstance(drop_prob, (int, float)):
        raise UserError(f"{origin}: its card's drop_prob={drop_prob!r} is not a number")
    if not entries:
        return None
    conditions = [config_from(Condition, each, origin) for each in entries]
    try:
        return ConditionModule(conditions, hidden, float(drop_prob))
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error


def _weights(stored: Stored) -> dict[str, Tensor]:
    """All tensors under their names in a folder; in a run's checkpoint they are those of `RLModule`."""
    if not stored.trained:
        return dict(stored.weights)
    parts = {
        "vae": stored.part("", "policy.vae."),
        "denoiser": plain_weights(stored.part("", AVERAGED), stored.card, stored.origin),
        "condition_module": stored.part("", "policy.conditions."),
    }
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def _modules(vae: CrystalVAE, denoiser: DiT, conditions: ConditionModule | None) -> nn.ModuleDict:
    """All that has weights, under the names they have in the file: `vae.`, `denoiser.`, `condition_module.`."""
    modules: dict[str, nn.Module] = {"vae": vae, "denoiser": denoiser}
    if conditions is not None:
        modules["condition_module"] = conditions
    return nn.ModuleDict(modules)
