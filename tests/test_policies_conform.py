"""Every policy passes the same conformance check, and the check finds what it says it finds."""

import pytest
import torch
from crystal_models import small_policy

from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import Prompts, Step
from atomrl.networks import egnn
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.policies.molecule import MoleculePolicy
from atomrl.policies.toy import LearnedStdGaussian, SubspaceGaussian
from atomrl.testing import check_policy

MEAN = torch.tensor([0.0, 0, 0, 0.3, -0.5])


def make(name: str, dtype: torch.dtype) -> torch.nn.Module:
    torch.manual_seed(0)
    if name == "molecule":
        return MoleculePolicy(EDMNetwork(EDMConfig(hidden=16, edge_hidden=8, layers=2))).to(dtype)
    return {"subspace": SubspaceGaussian, "learned_std": LearnedStdGaussian}[name](MEAN).to(dtype)


def prompts() -> Prompts:
    made = PromptPlan(SizeDistribution({4: 1, 5: 1, 7: 2}), groups=3, samples_per_group=2, seed=3).prompts(0)
    assert len(set(made.sizes.tolist())) > 1
    return made


@pytest.mark.parametrize("name", ["subspace", "learned_std", "molecule"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-8)])
def test_conforms(name: str, dtype: torch.dtype, tolerance: float) -> None:
    check_policy(make(name, dtype), prompts(), num_steps=20, tolerance=tolerance)


class WideStd(LearnedStdGaussian):
    """Its std grows with the padded width."""

    def step(self, latents, mask, transition, prompts):
        step = super().step(latents, mask, transition, prompts)
        return Step(step.mean, step.std * (1 + 0.01 * mask.shape[1]), step.prediction)


class WideNoise(SubspaceGaussian):
    """Its noise is centred over the padded width."""

    def noise(self, normals, mask):
        return self.project(normals - normals.mean(1, keepdim=True), torch.ones_like(mask))


class WideSpace(LearnedStdGaussian):
    """Its space is centred over the padded width."""

    def noise(self, normals, mask):
        return normals * mask[..., None]

    def project(self, latents, mask):
        return (latents - latents.mean(1, keepdim=True)) * mask[..., None]


class FirstSize(SubspaceGaussian):
    """Takes every sample to be as large as the first."""

    def step(self, latents, mask, transition, prompts):
        return super().step(latents, mask[:1].expand_as(mask), transition, prompts)


def leaky(mask: torch.Tensor) -> torch.Tensor:
    """Pairs in which a real atom receives also from padded ones."""
    return mask[:, :, None] * (1 - torch.eye(mask.shape[1], dtype=mask.dtype))


@pytest.mark.parametrize(
    ("fault", "what"),
    [("leaky", "mean"), (FirstSize, "mean"), (WideStd, "std"), (WideNoise, "noise"), (WideSpace, "projection")],
)
def test_a_dependence_on_padding_is_found(fault, what, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although all samples of each of the rollout's batches are of one size, so that it pads none of them."""
    policy = make("molecule", torch.float32) if fault == "leaky" else fault(MEAN)
    monkeypatch.setattr(egnn, "pair_mask", leaky if fault == "leaky" else egnn.pair_mask)
    with pytest.raises(AssertionError, match=f"the {what} of transition .* depends on the padding"):
        check_policy(policy, prompts(), num_steps=20)


def test_the_published_layout_depends_on_padding() -> None:
    """As documented, and the only one that does: where the variance is read depends on the padded width."""
    with pytest.raises(AssertionError, match="the std of transition 0 depends on the padding"):
        check_policy(small_policy(layout="published"), prompts(), num_steps=20)
