"""`check_policy` refuses each broken promise with a sentence of its own, and no right policy."""

import dataclasses

import pytest
import torch

from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import Prompts, Step
from atomrl.policies.toy import LearnedStdGaussian, SubspaceGaussian
from atomrl.testing import check_policy

MEAN = torch.tensor([0.0, 0, 0, 0.3], dtype=torch.float64)


def prompts() -> Prompts:
    return PromptPlan(SizeDistribution({3: 1, 5: 1}), groups=2, samples_per_group=2, seed=3).prompts(0)


def check(policy: torch.nn.Module) -> None:
    check_policy(policy.double(), prompts(), num_steps=6, tolerance=1e-8)


class Detached(LearnedStdGaussian):
    """Its mean has no gradient, its log-probability has one through the std."""

    def step(self, latents, mask, transition, prompts):
        step = super().step(latents, mask, transition, prompts)
        return Step(step.mean.detach(), step.std, step.prediction)


class Frozen(SubspaceGaussian):
    """Nothing of it has a gradient."""

    def step(self, latents, mask, transition, prompts):
        with torch.no_grad():
            return super().step(latents, mask, transition, prompts)


class Severed(SubspaceGaussian):
    """Its mean has a gradient, which is 0."""

    def step(self, latents, mask, transition, prompts):
        step = super().step(latents, mask, transition, prompts)
        return Step(step.mean.detach() + 0 * self.current.mean.sum(), step.std, step.prediction)


class SeveredPrediction(SubspaceGaussian):
    """Its steps learn, its prediction does not."""

    def predict(self, latents, mask, t, prompts):
        return super().predict(latents, mask, t, prompts).detach() + 0 * self.current.mean.sum()


class Single(SubspaceGaussian):
    """Positions alone: an atom by itself stays at 0, whatever is learned."""

    def __init__(self, mean):
        super().__init__(mean[:3])
        self.current.scale = torch.nn.Parameter(torch.ones(()))

    def step(self, latents, mask, transition, prompts):
        return super().step(self.answering.scale * latents, mask, transition, prompts)

    def predict(self, latents, mask, t, prompts):
        return super().predict(self.answering.scale * latents, mask, t, prompts)


class Exploding(LearnedStdGaussian):
    """In float32 its noise is below the rounding of its latents, so that its log-probability has a gradient of 0."""

    learns_std = False

    def prior(self, prompts, draw):
        latents, mask = super().prior(prompts, draw)
        return 1e12 * latents, mask


class Tuple(SubspaceGaussian):
    """Its step is no `Step`."""

    def step(self, latents, mask, transition, prompts):
        step = super().step(latents, mask, transition, prompts)
        return step.mean, step.std, step.prediction


class Pairs(SubspaceGaussian):
    """Its walk is of numbers."""

    def transitions(self, num_steps):
        return tuple((step.t, step.s) for step in super().transitions(num_steps))


class NoMask(SubspaceGaussian):
    """Its prior is the latents alone."""

    def prior(self, prompts, draw):
        return super().prior(prompts, draw)[0]


class BoolMask(SubspaceGaussian):
    """The mask of its prior cannot be multiplied with."""

    def prior(self, prompts, draw):
        latents, mask = super().prior(prompts, draw)
        return latents, mask > 0


class Backwards(SubspaceGaussian):
    """The mask of its prior begins with what is padded."""

    def prior(self, prompts, draw):
        latents, mask = super().prior(prompts, draw)
        return latents, mask.flip(1)


class Full(LearnedStdGaussian):
    """Its prior has noise beyond the mask."""

    def prior(self, prompts, draw):
        latents, mask = super().prior(prompts, draw)
        return latents + 1, mask


class Unprojected(LearnedStdGaussian):
    """Its space has something beyond the mask."""

    def project(self, latents, mask):
        return latents

    def prior(self, prompts, draw):
        latents, mask = super().prior(prompts, draw)
        return latents * mask[..., None], mask


class Flat(SubspaceGaussian):
    """Its levels cannot be multiplied with latents."""

    def levels(self, t):
        return tuple(level.flatten() for level in super().levels(t))

    def forward_noise(self, clean, mask, t, normals):
        signal, level = super().levels(t)
        noise = self.project(normals, mask)
        return signal * clean + level * noise, noise


class NoTarget(SubspaceGaussian):
    """Its forward process gives z_t alone."""

    def forward_noise(self, clean, mask, t, normals):
        return super().forward_noise(clean, mask, t, normals)[0]


class Reading(SubspaceGaussian):
    """Changes the structures that it reads."""

    def read(self, clean, mask, prompts):
        found = super().read(clean, mask, prompts)
        return dataclasses.replace(found, **self.changed(found))


class FloatMask(Reading):
    def changed(self, found):
        return {"mask": found.mask.float()}


class Unpadded(Reading):
    def changed(self, found):
        return {"positions": found.positions + 1}


class Hydrogens(Reading):
    def changed(self, found):
        return {"numbers": torch.ones_like(found.numbers)}


class FloatNumbers(Reading):
    def changed(self, found):
        return {"numbers": found.numbers.double()}


class NotStructures(SubspaceGaussian):
    def read(self, clean, mask, prompts):
        return clean


class NextLevel(SubspaceGaussian):
    """Its z0_pred takes the noise level after the step for that before it."""

    def estimate(self, latents, transition, prediction):
        signal, level = self.levels(torch.tensor([transition.s]))
        return (latents - level * prediction) / signal


class NoisyEstimate(SubspaceGaussian):
    """Its z0_pred is z_t."""

    def estimate(self, latents, transition, prediction):
        return latents


class PredictsClean(SubspaceGaussian):
    """Its network predicts z_0."""

    def step(self, latents, mask, transition, prompts):
        step = super().step(latents, mask, transition, prompts)
        kernel = self._kernel(transition.s, transition.t)
        return Step(step.mean, step.std, kernel.clean(latents, step.prediction))

    def predict(self, latents, mask, t, prompts):
        signal, level = self.levels(t)
        return (latents - level * super().predict(latents, mask, t, prompts)) / signal

    def estimate(self, latents, transition, prediction):
        return prediction

    def forward_noise(self, clean, mask, t, normals):
        return super().forward_noise(clean, mask, t, normals)[0], clean


class PredictsVelocity(SubspaceGaussian):
    """Its network predicts v = alpha eps - sigma z_0 (Salimans & Ho 2022)."""

    def velocity(self, latents, noise, t):
        signal, level = self.levels(t)
        return signal * noise - level * (latents - level * noise) / signal

    def step(self, latents, mask, transition, prompts):
        step = super().step(latents, mask, transition, prompts)
        t = torch.tensor([transition.t])
        return Step(step.mean, step.std, self.velocity(latents, step.prediction, t))

    def predict(self, latents, mask, t, prompts):
        return self.velocity(latents, super().predict(latents, mask, t, prompts), t)

    def estimate(self, latents, transition, prediction):
        signal, level = self.levels(torch.tensor([transition.t]))
        return signal * latents - level * prediction

    def forward_noise(self, clean, mask, t, normals):
        noised, noise = super().forward_noise(clean, mask, t, normals)
        signal, level = self.levels(t)
        return noised, signal * noise - level * clean


class WrongClean(PredictsClean):
    """Its z0_pred takes the network's z_0 for noise."""

    def estimate(self, latents, transition, prediction):
        return SubspaceGaussian.estimate(self, latents, transition, prediction)


class WrongVelocity(PredictsVelocity):
    """Its z0_pred has the wrong sign."""

    def estimate(self, latents, transition, prediction):
        signal, level = self.levels(torch.tensor([transition.t]))
        return signal * latents + level * prediction


class AlwaysCurrent(SubspaceGaussian):
    """Asks its current model, whoever should answer."""

    @property
    def answering(self):
        return self.current


class Staying(SubspaceGaussian):
    """Its old policy stays as it was first."""

    def follow(self, decay):
        super().follow(1.0)


class Reversed(SubspaceGaussian):
    """Its old policy takes what it should keep."""

    def follow(self, decay):
        super().follow(1 - decay)


@pytest.mark.parametrize("policy", [SubspaceGaussian, LearnedStdGaussian, PredictsClean, PredictsVelocity])
def test_right_policies_pass(policy: type[SubspaceGaussian]) -> None:
    """Whatever their network predicts."""
    check(policy(MEAN))


def test_a_gradient_may_be_0_where_there_is_nothing_to_learn() -> None:
    """In a bucket of single atoms, and of samples that a training leaves out."""
    plan = PromptPlan(SizeDistribution({1: 1, 5: 1}), groups=4, samples_per_group=2, seed=3)
    assert set(plan.prompts(0).sizes.tolist()) == {1, 5}
    check_policy(Single(MEAN).double(), plan.prompts(0), num_steps=6, tolerance=1e-8)
    check_policy(Exploding(MEAN).float(), prompts(), num_steps=6, tolerance=1e-5)


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (
            Detached,
            "the mean of transition 0 does not depend on any trainable parameter: compute it from what trainable",
        ),
        (Frozen, "the mean of transition 0 does not depend on any trainable parameter"),
        (
            Severed,
            "the gradient of the mean of transition 0 is 0 for all trainable parameters: compute it from what",
        ),
        (SeveredPrediction, "the gradient of the denoising loss is 0 for all trainable parameters"),
        (Tuple, r"step must return a Step\(mean, std, prediction\), got tuple"),
        (Pairs, "transitions must return Transition objects, got tuple"),
        (NoMask, "prior must return two tensors, z_T and its mask, got float64 of shape"),
        (BoolMask, "prior's mask must hold floats, got bool"),
        (Backwards, "prior's mask must be 1 for the first atoms of a sample"),
        (Full, "prior's z_T must be 0 beyond the mask"),
        (Unprojected, "what project returns must be 0 beyond the mask"),
        (Flat, r"levels' alpha_t must have the shape \(4, 1, 1\), got \(4,\)"),
        (NoTarget, "forward_noise must return two tensors, z_t and the target, got float64 of shape"),
        (FloatMask, "the mask of the structures that decode returns must be bool, got float32: `mask > 0`"),
        (Unpadded, "decode must return positions that are 0 beyond the mask"),
        (Hydrogens, "decode must return the atomic number 0 beyond the mask"),
        (FloatNumbers, r"the atomic numbers that decode returns must be int64, got float64: `.long\(\)`"),
        (NotStructures, "decode must return Structures, got float64 of shape"),
        (NextLevel, "z0_pred of transition 0, which estimate returned, does not agree with the network's prediction"),
        (
            NoisyEstimate,
            "z0_pred of transition 0, which estimate returned, does not agree with the network's prediction",
        ),
        (WrongClean, "which estimate returned, does not agree with the network's prediction"),
        (WrongVelocity, "which estimate returned, does not agree with the network's prediction"),
        (AlwaysCurrent, r"inside reference\(\), step must answer by the model as it was at keep_reference\(\)"),
        (Staying, r"inside old\(\), after follow\(0.0\), step must answer by the current model as it was then"),
        (Reversed, r"inside old\(\), after follow\(1.0\), step must answer by the old model as it was before"),
    ],
)
def test_broken_promises_are_named(policy: type[SubspaceGaussian], said: str) -> None:
    with pytest.raises(AssertionError, match=said) as caught:
        check(policy(MEAN))
    assert "\n" not in str(caught.value).split("\nassert")[0]
