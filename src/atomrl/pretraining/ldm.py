"""Pre-training of the crystal denoiser on the latents of a frozen VAE (Lightning module)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from atomrl.core.random import generator
from atomrl.data.crystal_batches import CrystalBatch
from atomrl.diffusion.gaussian import DIFFUSION_STEPS, training_loss
from atomrl.networks.conditional_dit import PREFIX, ConditionalDiT
from atomrl.networks.conditions import Condition, ConditionModule, context_of
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.networks.lora import adapt, merged
from atomrl.networks.lora_options import LoraOptions
from atomrl.policies.crystal import encode
from atomrl.pretraining.base import PretrainConfig, Pretraining
from atomrl.structures.tensors import CrystalTensors


def unchanged(crystals: CrystalTensors) -> CrystalTensors:
    """The crystals as they are."""
    return crystals


class PretrainLDM(Pretraining[DiT, CrystalBatch]):
    """Trains a `DiT` on `training_loss`, with conditions a `ConditionalDiT`.

    A checkpoint holds the VAE and the scale of its latents too: a run that continues keeps those it began with. It also
    says what scale and classes the conditions have, so that a run does not go on with others.

    Args:
        model: shape of the denoiser.
        train: how to train it.
        vae: gives the clean latents, its posterior's mean; frozen.
        latent_std: the denoiser's latents are the VAE's over this.
        describe: which description of the crystals is learned, a function of the batch's augmented ones.
        conditions: whose values are the crystals' own; a batch's `properties` have those that are not about elements.
        drop_prob: chance that a crystal's conditions are dropped.
    """

    latent_std: Tensor

    def __init__(
        self,
        model: DiTConfig,
        train: PretrainConfig,
        vae: CrystalVAE,
        latent_std: float,
        describe: Callable[[CrystalTensors], CrystalTensors] = unchanged,
        conditions: Sequence[Condition] = (),
        drop_prob: float = 0.1,
    ) -> None:
        super().__init__(ConditionalDiT(model, conditions, drop_prob) if conditions else DiT(model), train)
        learned = [[each.name, f"{each.mean:.9g}", f"{each.std:.9g}", *each.classes] for each in conditions]
        self.save_hyperparameters({"model": model.model_dump(), "train": train.model_dump(), "conditions": learned})
        self.vae = vae.requires_grad_(False).eval()
        self.describe, self.conditions = describe, tuple(conditions)
        self.lora: LoraOptions | None = None
        self.register_buffer("latent_std", torch.tensor(latent_std))

    def start_from(self, denoiser: DiT, conditions: ConditionModule | None, lora: LoraOptions | None = None) -> None:
        """Take the weights of a backbone, for the averaged ones too; new conditions begin without effect.

        Args:
            denoiser: of the backbone.
            conditions: what embeds its conditions, if it has any.
            lora: of the adapters that are trained in place of the denoiser's weights; None, or a rank of 0: these are.

        Raises:
            UserError: as `adapt`.
        """
        for own in (self.network, self.average):
            if isinstance(own, ConditionalDiT):
                own.start_from(denoiser.state_dict(), conditions)
            else:
                own.load_state_dict(denoiser.state_dict())
            if lora is not None and lora.rank:
                adapt(own, lora, self.config.seed)
                self.lora = lora

    def learned(self) -> tuple[DiT, ConditionModule | None]:
        """The denoiser with the averaged weights, a copy, adapters merged; and what embeds its conditions, if any."""
        network, weights = self.average, self.average.state_dict()
        if self.lora is not None:
            weights = merged(weights, self.lora.scale, "this run")
        denoiser = DiT(network.config)
        denoiser.load_state_dict({name: weight for name, weight in weights.items() if not name.startswith(PREFIX)})
        return denoiser, network.condition_module if isinstance(network, ConditionalDiT) else None

    def losses(self, network: DiT, batch: CrystalBatch, purpose: str) -> dict[str, Tensor]:
        """Batch means of `mse`, `vb` (bits) and their sum, `loss`."""
        rng = generator(self.device, self.config.seed, batch.step, purpose)
        with torch.no_grad():
            clean = encode(self.vae, self.describe(batch.crystals), float(self.latent_std))
        steps = torch.randint(DIFFUSION_STEPS, clean.shape[:1], generator=rng, device=self.device)
        noise = torch.randn(clean.shape, generator=rng, device=self.device)
        embedded = None
        if isinstance(network, ConditionalDiT):
            context = context_of(self.conditions, batch.crystals.numbers, batch.properties)
            uniforms = torch.rand(len(context), generator=rng, device=self.device)
            embedded = network.condition_module.training_embedding(context, uniforms)

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            out: Tensor = network(noisy, times, batch.mask, embedded)
            return out

        terms = training_loss(predict, clean, batch.mask, steps, noise)
        return {name: values.mean() for name, values in terms.items()}
