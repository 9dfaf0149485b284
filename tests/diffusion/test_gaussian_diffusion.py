"""Respaced walks, reverse steps and the training loss against golden vectors and closed forms."""

import math

import pytest
import torch
from crystal_models import WALKS, GoldenLDM, golden_ldm
from golden import error

from atomrl.core.log_prob import gaussian_log_prob
from atomrl.diffusion.gaussian import (
    LearnedKernel,
    alpha_bar,
    ddim_kernel,
    ddpm_kernel,
    ddpm_kernels,
    respaced_times,
    training_loss,
)
from atomrl.util.errors import UserError

STEP = 1e-6
EXACT = 1e-5


@pytest.fixture(scope="module")
def golden() -> GoldenLDM:
    return golden_ldm()


@pytest.mark.parametrize(("sampler", "steps"), [("ddpm", 50), ("ddpm", 1000), ("ddim", 50)])
def test_timestep_maps(golden, sampler, steps):
    times = torch.tensor(respaced_times(steps, sampler))
    assert times[0] == 0
    assert torch.equal(times[1:] - 1, golden.expected[f"{sampler}{steps}_timestep_map"])


@pytest.mark.parametrize(("sampler", "steps", "index"), WALKS)
def test_golden_steps(golden, sampler, steps, index):
    case, mask = golden.expected, golden.mask
    expected = {
        name.removeprefix(f"{sampler}{steps}_i{index}_"): value
        for name, value in case.items()
        if name.startswith(f"{sampler}{steps}_i{index}_")
    }
    times = respaced_times(steps, sampler)
    kernel = ddpm_kernels(steps)[index] if sampler == "ddpm" else ddim_kernel(times[index], times[index + 1], 1.0)
    with torch.no_grad():
        output = golden.denoiser(case["z"], torch.full((3,), times[index + 1] - 1), mask)
    noise, place = output.chunk(2, dim=-1)
    mean = kernel.mean(case["z"], noise)
    std = torch.full_like(mean, kernel.std)
    if isinstance(kernel, LearnedKernel):
        std = torch.exp(kernel.log_variance(place) / 2)
    real = mask > 0
    assert error(mean[real], expected["mean"][real]) < STEP
    if sampler == "ddim" and index == 0:
        assert kernel.std == 0
    else:
        assert error(std[real], expected["std"][real]) < STEP
    following = (mean + (std * expected["noise"] if index else 0)) * mask[..., None]
    assert error(following, expected["sample"]) < STEP
    if index:
        log_prob = gaussian_log_prob(expected["sample"], mean, std, mask, "mean")
        assert error(log_prob, expected["log_prob"]) < STEP


def test_golden_training_loss(golden):
    case = golden.expected
    with torch.no_grad():
        terms = training_loss(
            lambda noisy, steps: golden.denoiser(noisy, steps, golden.mask),
            case["z"],
            golden.mask,
            case["loss_t"],
            case["loss_noise"],
        )
    for name in ("mse", "vb", "loss"):
        assert error(terms[name], case[f"loss_{name}"]) < EXACT, name


def inputs():
    torch.manual_seed(0)
    mask = torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]], dtype=torch.float64)
    clean = torch.randn(3, 4, 8, dtype=torch.float64) * mask[..., None]
    noise, output = torch.randn_like(clean), torch.randn(3, 4, 16, dtype=torch.float64)
    return clean, mask, noise, output


def test_first_step_of_the_bound_is_a_density():
    """At step 0 the bound is -log2 p(x_0 | x_1), a normalised Gaussian density around the predicted mean."""
    clean, mask, noise, output = inputs()
    terms = training_loss(lambda *_: output, clean, mask, torch.zeros(3, dtype=torch.long), noise)
    kernel = ddpm_kernels(1000)[0]
    noisy = kernel.alpha_t * clean + kernel.sigma_t * noise
    predicted, place = output.chunk(2, dim=-1)
    density = torch.distributions.Normal(kernel.mean(noisy, predicted), torch.exp(kernel.log_variance(place) / 2))
    bits = -density.log_prob(clean) / math.log(2)
    expected = (bits * mask[..., None]).sum((1, 2)) / (8 * mask.sum(1))
    torch.testing.assert_close(terms["vb"], expected, rtol=1e-9, atol=0)


def test_other_steps_of_the_bound_are_divergences():
    """KL between q(x_{t-1} | x_t, x_0), in its textbook form, and the model's step."""
    clean, mask, noise, output = inputs()
    steps = torch.tensor([1, 500, 999])
    terms = training_loss(lambda *_: output, clean, mask, steps, noise)
    bars = alpha_bar()
    for row, step in enumerate(steps.tolist()):
        kernel, before, after = ddpm_kernels(1000)[step], bars[step], bars[step + 1]
        noisy = after.sqrt() * clean[row] + (1 - after).sqrt() * noise[row]
        beta = 1 - after / before
        posterior = before.sqrt() * beta / (1 - after) * clean[row]
        posterior = posterior + (1 - beta).sqrt() * (1 - before) / (1 - after) * noisy
        predicted, place = output[row].chunk(2, dim=-1)
        truth = torch.distributions.Normal(posterior, (beta * (1 - before) / (1 - after)).sqrt())
        model = torch.distributions.Normal(kernel.mean(noisy, predicted), torch.exp(kernel.log_variance(place) / 2))
        bits = torch.distributions.kl_divergence(truth, model) / math.log(2)
        expected = (bits * mask[row, :, None]).sum() / (8 * mask[row].sum())
        torch.testing.assert_close(terms["vb"][row], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("step", [0, 400])
def test_the_bound_moves_the_variance_alone(step):
    clean, mask, noise, output = inputs()
    output.requires_grad_()
    terms = training_loss(lambda *_: output, clean, mask, torch.full((3,), step), noise)
    (gradient,) = torch.autograd.grad(terms["vb"].sum(), output)
    assert gradient[..., :8].abs().max() == 0
    assert gradient[..., 8:].abs().max() > 0
    assert gradient[mask == 0].abs().max() == 0


def test_the_loss_under_autocast():
    """Rounded to bfloat16, most bounds of the variance are the same number, and nothing would teach it."""
    clean, mask, noise, output = (part.float() for part in inputs())
    output.requires_grad_()
    steps = torch.tensor([900, 500, 200])
    low, high = (training_loss(lambda *_: output, part, mask, steps, noise) for part in (clean.bfloat16(), clean))
    gradients = [torch.autograd.grad(terms["vb"].sum(), output)[0] for terms in (low, high)]
    assert low["loss"].dtype == torch.float32
    torch.testing.assert_close(low["vb"], high["vb"], rtol=1e-5, atol=0)  # the same parameters of the same noise
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-9)
    assert (gradients[0][..., 8:].abs().amax((1, 2)) > 0).all()


def test_noise_of_padded_atoms_stays_in_the_input():
    clean, mask, noise, output = inputs()
    seen = []
    training_loss(lambda noisy, _: seen.append(noisy) or output, clean, mask, torch.full((3,), 999), noise)
    assert seen[0][mask == 0].abs().min() > 0


def test_variance_bounds():
    kernel = ddpm_kernel(400, 401)
    ends = kernel.log_variance(torch.tensor([-1.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([kernel.log_posterior, kernel.log_beta])
    assert math.exp(kernel.log_posterior / 2) == pytest.approx(kernel.std)
    first, second = ddpm_kernels(50)[:2]
    assert first.log_posterior == second.log_posterior
    assert first.std == 0


def walk(kernels, mean: float, variance: float) -> tuple[float, float]:
    """Moments of the samples that the exact score of N(mean, variance) leads to: each step is linear."""
    m, v = 0.0, 1.0
    for kernel in reversed(kernels):
        spread = kernel.alpha_t**2 * variance + kernel.sigma_t**2
        slope = kernel.signal - kernel.noise * kernel.sigma_t / spread
        m = slope * m + kernel.noise * kernel.sigma_t * kernel.alpha_t * mean / spread
        v = slope**2 * v + kernel.std**2
    return m, v


@pytest.mark.parametrize("eta", [None, 0.0, 0.5, 1.0])
def test_the_exact_score_recovers_its_moments(eta):
    """1000 steps, posterior variance. The prior's variance is 1 - alpha-bar_T short of the data's share: 4e-5."""
    kernels = [ddpm_kernel(t - 1, t) if eta is None else ddim_kernel(t - 1, t, eta) for t in range(1, 1001)]
    mean, variance = walk(kernels, mean=0.8, variance=0.3)
    assert mean == pytest.approx(0.8, rel=0.01)
    assert variance == pytest.approx(0.3, rel=0.02)


def test_stochastic_ddim_is_ddpm_with_the_posterior_variance():
    """eta = 1 over any stride; DDIM's numbers are float32, as published."""
    for s, t in ((20, 40), (500, 520), (960, 981)):
        ddpm, ddim = ddpm_kernel(s, t), ddim_kernel(s, t, 1.0)
        for name in ("signal", "noise", "std"):
            assert getattr(ddim, name) == pytest.approx(getattr(ddpm, name), rel=1e-3), name


@pytest.mark.parametrize(
    ("steps", "sampler", "message"),
    [
        (300, "ddim", "use 250 or 334 steps"),
        (0, "ddim", "integer stride"),
        (1, "ddpm", "between 2 and 1000"),
        (1001, "ddpm", "between 2 and 1000"),
        (50, "euler", "unknown sampler"),
    ],
)
def test_walks_that_do_not_exist(steps, sampler, message):
    with pytest.raises(UserError, match=message):
        respaced_times(steps, sampler)


@pytest.mark.parametrize("steps", [2, 20, 100, 1000])
def test_ddim_walks(steps):
    times = respaced_times(steps, "ddim")
    assert len(times) == steps + 1
    assert len(set(torch.tensor(times[1:]).diff().tolist())) == 1
