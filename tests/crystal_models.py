"""Crystal networks for tests: the golden ones with what they must answer, and small random ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from golden import DATA
from safetensors.torch import load_file
from torch import Tensor, nn

from atomrl.networks.conditions import Condition, ConditionModule
from atomrl.networks.crystal_vae import CrystalVAE, CrystalVAEConfig
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.policies.crystal import CrystalPolicy, Sampling
from atomrl.structures.tensors import CrystalTensors

WALKS = [("ddpm", 50, i) for i in (0, 1, 25, 49)]
WALKS += [("ddpm", 1000, i) for i in (0, 1, 500, 999)]
WALKS += [("ddim", 50, i) for i in (0, 1, 25, 49)]
"""(sampler, steps, respaced index) of the recorded reverse steps."""


def _split(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights and expected tensors of a file, prefixes left out."""
    tensors = load_file(DATA / f"{name}.safetensors")
    return tuple(
        {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        for prefix in ("state.", "case.")
    )


@dataclass(frozen=True)
class GoldenVAE:
    """A VAE with its weights, and what it must answer; vectors are stored atom after atom, without padding."""

    vae: CrystalVAE
    expected: dict[str, Tensor]
    mask: Tensor

    def padded(self, values: Tensor) -> Tensor:
        """Per-atom values (sum of N, ...) as a batch (B, N, ...)."""
        batch = values.new_zeros(*self.mask.shape, *values.shape[1:])
        batch[self.mask] = values
        return batch

    @property
    def batch(self) -> CrystalTensors:
        """The three crystals."""
        case = self.expected
        types, coords = self.padded(case["in_atom_types"]), self.padded(case["in_frac_coords"])
        return CrystalTensors(types, coords, case["in_lattices"], self.mask)


def golden_vae(padding: int = 0) -> GoldenVAE:
    """The recorded VAE, its crystals padded to 6 + `padding` atoms."""
    weights, expected = _split("crystal_vae")
    vae = CrystalVAE(CrystalVAEConfig(width=32, heads=4, feedforward=64, layers=2))
    vae.load_state_dict(weights)
    sizes = expected["in_num_atoms"]
    return GoldenVAE(vae.eval(), expected, torch.arange(int(sizes.max()) + padding) < sizes[:, None])


@dataclass(frozen=True)
class GoldenLDM:
    """A denoiser and its condition with their weights, and what they must answer."""

    denoiser: DiT
    conditions: ConditionModule
    expected: dict[str, Tensor]

    @property
    def mask(self) -> Tensor:
        """(3, 6), float32."""
        return self.expected["mask"].float()


def golden_ldm() -> GoldenLDM:
    """The recorded denoiser, with the published layout of its output."""
    weights, expected = _split("crystal_ldm")
    denoiser = DiT(DiTConfig(hidden=48, depth=2, heads=4, layout="published"))
    conditions = ConditionModule([Condition(name="band_gap", kind="value", mean=0.797, std=1.408)], hidden=48)
    for prefix, module in (("denoiser.", denoiser), ("condition_module.", conditions)):
        module.load_state_dict(
            {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        )
    return GoldenLDM(denoiser, conditions, expected)


def randomized(module: nn.Module, std: float = 0.1) -> nn.Module:
    """A module with all its parameters random: a fresh denoiser answers 0 to everything."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module


def small_vae() -> CrystalVAE:
    """Random weights."""
    return CrystalVAE(CrystalVAEConfig(width=16, heads=2, feedforward=32, layers=1))


def small_policy(
    sampling: Sampling | None = None,
    conditions: tuple[Condition, ...] = (),
    latent_std: float = 1.0,
    layout: str = "channels",
) -> CrystalPolicy:
    """Random weights, large enough for the condition and the learned variance to matter."""
    torch.manual_seed(0)
    denoiser = randomized(DiT(DiTConfig(hidden=16, depth=2, heads=2, layout=layout)), std=0.2)
    module = ConditionModule(conditions, hidden=16) if conditions else None
    return CrystalPolicy(denoiser, small_vae(), latent_std, module, sampling)
