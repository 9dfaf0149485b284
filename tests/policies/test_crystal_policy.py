"""The crystal policy: conformance, the recorded steps, guidance, latent scale, what is frozen."""

import pytest
import torch
from crystal_models import WALKS, golden_ldm, golden_vae, small_policy, small_vae
from golden import error

from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import Prompts
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.networks.conditions import Condition
from atomrl.policies.crystal import CrystalPolicy, Sampling, encode, measure_latent_std
from atomrl.testing import check_policy
from atomrl.util.errors import UserError

GAP = Condition(name="band_gap", kind="value", mean=1.0, std=0.5)
WALK_STEPS = 20


def prompts(context: torch.Tensor | None = None) -> Prompts:
    plan = PromptPlan(SizeDistribution({2: 1, 5: 1, 7: 2}), groups=3, samples_per_group=2, seed=3)
    made = plan.prompts(0)
    assert len(set(made.sizes.tolist())) > 1
    return Prompts(made.seed, made.iteration, made.sizes, made.group_ids, made.sample_ids, context)


def gaps() -> torch.Tensor:
    return torch.linspace(0, 3, 6)[:, None]


def golden_prompts(context=None) -> Prompts:
    ids = torch.arange(3)
    return Prompts(0, 0, torch.tensor([2, 5, 6]), ids, ids, context)


@pytest.mark.parametrize("conditional", [False, True], ids=["plain", "guided"])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-8)])
def test_conforms(sampler, conditional, dtype, tolerance):
    policy = small_policy(Sampling(sampler, eta=1.0), (GAP,) if conditional else ()).to(dtype)
    check_policy(policy, prompts(gaps() if conditional else None), WALK_STEPS, tolerance)


@pytest.mark.parametrize(("sampler", "steps", "index"), WALKS)
def test_walks_the_golden_steps(sampler, steps, index):
    golden = golden_ldm()
    policy = CrystalPolicy(golden.denoiser, small_vae(), 1.0, sampling=Sampling(sampler))
    latents, mask = golden.expected["z"], golden.mask
    transition = policy.transitions(steps)[steps - 1 - index]
    with torch.no_grad():
        step = policy.step(latents, mask, transition, golden_prompts())
    name, real = f"{sampler}{steps}_i{index}", mask > 0
    assert error(step.mean[real], golden.expected[f"{name}_mean"][real]) < 1e-6
    assert transition.trainable == (index > 0)
    if index:
        expected = golden.expected[f"{name}_std"]
        assert error(torch.as_tensor(step.std).expand_as(expected)[real], expected[real]) < 1e-6
    else:
        assert step.std == 0
        assert transition.s == 0
        sample = policy.project(step.mean, mask)
        assert error(sample, golden.expected[f"{name}_sample"]) < 1e-6


def test_guided_prediction_is_the_golden_one():
    golden = golden_ldm()
    policy = CrystalPolicy(golden.denoiser, small_vae(), 1.0, golden.conditions)
    row = 1  # its recorded time, 500, is also that of a step of the 1000-step walk
    transition = policy.transitions(1000)[999 - int(golden.expected["t"][row])]
    with torch.no_grad():
        step = policy.step(
            golden.expected["z"], golden.mask, transition, golden_prompts(golden.expected["band_gap"][:, None])
        )
    expected = torch.cat(golden.expected["out_cfg"][row].chunk(2), dim=-1)
    assert error(step.prediction[row], expected) < 1e-6


def test_guidance_scales_the_difference():
    made = [small_policy(Sampling(guidance_scale=scale), (GAP,)) for scale in (0.0, 1.0, 3.0)]
    given = prompts(gaps())
    latents = torch.randn(6, 7, 8)
    mask = (torch.arange(7) < given.sizes[:, None]).float()
    transition = made[0].transitions(WALK_STEPS)[4]
    with torch.no_grad():
        none, one, three = (policy.step(latents, mask, transition, given).prediction for policy in made)
    torch.testing.assert_close(three, none + 3 * (one - none))
    assert (one - none).abs().max() > 1e-3


def test_context_and_conditions_belong_together():
    latents, mask = torch.randn(6, 7, 8), torch.ones(6, 7)
    plain, conditional = small_policy(), small_policy(conditions=(GAP,))
    transition = plain.transitions(WALK_STEPS)[0]
    with pytest.raises(UserError, match="conditioned on band_gap"):
        conditional.step(latents, mask, transition, prompts())
    with pytest.raises(UserError, match="unconditional"):
        plain.step(latents, mask, transition, prompts(gaps()))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_balance_is_std_over_the_factor_of_the_noise(sampler):
    """With a learned std the fixed posterior's, v = -1, stands for it."""
    policy = small_policy(Sampling(sampler))
    latents, mask = torch.randn(1, 4, 8, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)
    prediction = torch.cat([torch.randn(1, 4, 8), -torch.ones(1, 4, 8)], dim=-1).double()
    policy = policy.double()
    *others, last = policy.transitions(WALK_STEPS)
    assert not last.trainable
    assert last.balance == 0
    for transition in others:
        policy._predict = lambda *_: prediction
        step = policy.step(latents, mask, transition, prompts())
        policy._predict = lambda *_: prediction + 1
        factor = float((step.mean - policy.step(latents, mask, transition, prompts()).mean).mean())
        assert transition.balance == pytest.approx(float(torch.as_tensor(step.std).mean()) / factor, rel=1e-6)


def test_deterministic_ddim_trains_nothing():
    walk = small_policy(Sampling("ddim", eta=0.0)).transitions(WALK_STEPS)
    assert not any(transition.trainable for transition in walk)


def test_forward_noise_is_undone_by_the_estimate():
    policy = small_policy().double()
    torch.manual_seed(0)
    mask = torch.tensor([[1.0, 1, 0], [1, 1, 1]], dtype=torch.float64)
    clean = policy.project(torch.randn(2, 3, 8, dtype=torch.float64), mask)
    for transition in policy.transitions(WALK_STEPS):
        normals = torch.randn(2, 3, 8, dtype=torch.float64)
        noisy, target = policy.forward_noise(clean, mask, torch.full((2,), transition.t), normals)
        prediction = torch.cat([target, torch.zeros_like(target)], dim=-1)
        torch.testing.assert_close(policy.estimate(noisy, transition, prediction), clean)
        assert noisy[0, 2].abs().max() == 0
    start, _ = policy.forward_noise(clean, mask, torch.zeros(2), normals)
    torch.testing.assert_close(start, clean)


def test_latents_are_scaled_back_before_decoding():
    golden = golden_vae()
    policy = CrystalPolicy(small_policy().current, golden.vae, latent_std=0.25)
    mask = golden.mask.float()
    with torch.no_grad():
        clean = encode(golden.vae, golden.batch, 0.25)
        structures = policy.read(clean, mask, golden_prompts())
    assert error(clean[golden.mask], golden.expected["z"] / 0.25) < 1e-5
    assert error(structures.cell, golden.expected["rec_lattices"]) < 1e-5
    assert torch.equal(structures.numbers[golden.mask], golden.expected["rec_types"])


def test_measured_latent_std_gives_unit_variance():
    golden = golden_vae(padding=2)
    std = measure_latent_std(golden.vae, golden.batch)
    assert std == pytest.approx(float(golden.expected["z"].std()), rel=1e-5)
    clean = encode(golden.vae, golden.batch, std)[golden.mask]
    assert float(clean.detach().std()) == pytest.approx(1, rel=1e-6)


def test_only_the_denoiser_is_trained():
    policy = small_policy(conditions=(GAP,))
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    assert trained == {f"current.{name}" for name, _ in policy.trainable().named_parameters()}
    assert trained


def test_reference_answers_as_it_was():
    policy = small_policy()
    policy.keep_reference()
    latents, mask, transition = torch.randn(6, 7, 8), torch.ones(6, 7), policy.transitions(WALK_STEPS)[3]
    with torch.no_grad():
        before = policy.step(latents, mask, transition, prompts()).mean
        policy.current.final_layer.linear.bias.add_(1)
        moved = policy.step(latents, mask, transition, prompts()).mean
        with policy.reference():
            reference = policy.step(latents, mask, transition, prompts()).mean
    assert torch.equal(reference, before)
    assert (moved - before).abs().max() > 1e-3


def test_samples_are_crystals():
    trajectory = rollout(small_policy(), prompts(), RolloutConfig(WALK_STEPS, micro_batch_size=6))
    structures = trajectory.structures
    assert structures.cell is not None
    assert structures.cell.shape == (6, 3, 3)
    assert bool((structures.numbers[structures.mask] >= 1).all())
    assert structures.numbers[~structures.mask].sum() == 0


@pytest.mark.parametrize(("entries", "message"), [({"sampler": "euler"}, "unknown sampler"), ({"eta": 1.5}, "eta")])
def test_bad_sampling(entries, message):
    with pytest.raises(UserError, match=message):
        Sampling(**entries)
