"""Schedule and kernels against the golden vectors and closed forms."""

import math

import pytest
import torch
from golden import EDM_CASES, WALKS, GoldenEDM, error, load_edm

from atomrl.core.log_prob import gaussian_log_prob
from atomrl.core.records import Prompts
from atomrl.diffusion.edm import ReverseKernel, alpha, polynomial_gamma, project, remove_mean, sigma
from atomrl.policies.molecule import MoleculePolicy

EXACT = 1e-5


@pytest.fixture(params=EDM_CASES, scope="module")
def golden(request) -> GoldenEDM:
    return load_edm(request.param)


def kernel_of(golden, steps, s):
    table = golden.network.gamma.gamma
    return ReverseKernel.between(table[round(1000 * s / steps)], table[round(1000 * (s + 1) / steps)])


def prompts_of(golden):
    ids = torch.arange(len(golden.mask))
    return Prompts(0, 0, golden.mask.sum(1).long(), ids, ids, golden.context)


def test_schedule_matches_the_published_table(golden):
    assert error(polynomial_gamma(), golden.network.gamma.gamma) < 1e-7


@pytest.mark.parametrize(("steps", "s"), WALKS)
def test_noise_levels(golden, steps, s):
    table = golden.network.gamma.gamma
    for name, place in (("gamma_s", s), ("gamma_t", s + 1)):
        expected = golden.expected[f"T{steps}_s{s}_{name}"]
        assert error(table[round(1000 * place / steps)].expand_as(expected), expected) < 1e-7


@pytest.mark.parametrize(("steps", "s"), WALKS)
def test_reverse_step_given_the_noise(golden, steps, s):
    """Given eps, the kernel alone has to agree: the network's own error does not enter."""
    expected = {
        name.removeprefix(f"T{steps}_s{s}_"): value
        for name, value in golden.expected.items()
        if name.startswith(f"T{steps}_s{s}_")
    }
    latents, mask, kernel = golden.expected["z_t"], golden.mask, kernel_of(golden, steps, s)
    mean = kernel.mean(latents, expected["eps"])
    following = project(mean + kernel.std * expected["noise"], mask)
    assert error(mean, expected["mu"]) < EXACT
    assert error(torch.full_like(expected["sigma"], kernel.std), expected["sigma"]) < EXACT
    assert error(following, expected["z_s"]) < EXACT
    assert error(kernel.clean(latents, expected["eps"]), expected["z0_pred"]) < EXACT
    log_prob = gaussian_log_prob(expected["z_s"], expected["mu"], kernel.std, mask, "sum")
    assert error(log_prob, expected["log_prob"]) < EXACT


def test_policy_walks_the_golden_steps(golden):
    """The policy's transitions, steps and estimates are the recorded ones, network included."""
    policy, prompts = MoleculePolicy(golden.network), prompts_of(golden)
    for steps, s in WALKS:
        transition = policy.transitions(steps)[steps - 1 - s]
        with torch.no_grad():
            step = policy.step(golden.expected["z_t"], golden.mask, transition, prompts)
            clean = policy.estimate(golden.expected["z_t"], transition, step.prediction)
        assert error(step.mean, golden.expected[f"T{steps}_s{s}_mu"]) < golden.tolerance
        assert error(clean, golden.expected[f"T{steps}_s{s}_z0_pred"]) < golden.tolerance


@pytest.mark.parametrize("steps", [50, 30])
def test_a_step_and_a_sample_that_is_noised_again_follow_one_rule(golden, steps):
    """Of 30 steps most times lie between two places of the table: the nearest gives the noise, the time is asked."""
    policy, prompts = MoleculePolicy(golden.network), prompts_of(golden)
    table, asked = golden.network.gamma.gamma, []
    handle = golden.network.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[1]))
    try:
        for transition in policy.transitions(steps)[steps // 3 :: steps // 3]:
            times = torch.full((len(golden.mask),), transition.t)
            gamma = table[round(1000 * transition.t)]
            for level, expected in zip(policy.levels(times), (alpha(gamma), sigma(gamma)), strict=True):
                assert torch.equal(level, expected.expand_as(level))
            with torch.no_grad():
                step = policy.step(golden.expected["z_t"], golden.mask, transition, prompts)
                again = policy.predict(golden.expected["z_t"], golden.mask, times, prompts)
            assert torch.equal(step.prediction, again)
            signal, noise = (level.flatten()[0] for level in policy.levels(times))
            clean = (golden.expected["z_t"] - noise * again) / signal
            found = policy.estimate(golden.expected["z_t"], transition, again)
            assert error(found, clean) < EXACT
            assert all(torch.equal(one, times) for one in asked[-2:])
    finally:
        handle.remove()


def test_decoder(golden):
    policy = MoleculePolicy(golden.network)
    with torch.no_grad():
        mean, std = policy.decoder(golden.expected["decode_z0"], golden.mask, prompts_of(golden))
    assert error(mean, golden.expected["decode_mu"]) < golden.tolerance
    expected = golden.expected["decode_sigma"]
    assert error(torch.full_like(expected, std), expected) < EXACT


def test_kernel_composes_the_forward_process():
    """With the exact eps, z_t ~ N(alpha_t x, sigma_t^2) leads to z_s ~ N(alpha_s x, sigma_s^2)."""
    table = polynomial_gamma().double()
    low, high = table[300], table[500]
    kernel = ReverseKernel.between(low, high)
    clean, noise = 0.7, 1.3
    latent = float(alpha(high)) * clean + float(sigma(high)) * noise
    mean = kernel.mean(torch.tensor(latent), torch.tensor(noise))
    # Averaged over the noise the latent is alpha_s x; the variances add up to sigma_s^2.
    share = float(kernel.signal * sigma(high) - kernel.noise)
    assert float(mean) == pytest.approx(float(alpha(low)) * clean + share * noise, rel=1e-6)
    assert math.hypot(share, kernel.std) == pytest.approx(float(sigma(low)), rel=1e-9)


def test_projection_is_idempotent_and_ignores_padding():
    torch.manual_seed(0)
    mask = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.float64)
    latents = torch.randn(2, 4, 8, dtype=torch.float64)
    once = project(latents, mask)
    torch.testing.assert_close(project(once, mask), once)
    assert once[0, 3].abs().max() == 0
    torch.testing.assert_close(once[..., :3].sum(1), torch.zeros(2, 3, dtype=torch.float64))
    torch.testing.assert_close(remove_mean(latents[:1, :3, :3], mask[:1, :3]), once[:1, :3, :3])
