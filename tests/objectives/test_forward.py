"""Forward-process objectives: published forms, their exact expansion, and what is invariant."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from crystal_models import randomized, small_policy
from forward_samples import PLAIN, gradient, nothing, predictions, samples_of, scores

from atomrl.core.objectives import nft
from atomrl.core.objectives.awm import AWM
from atomrl.core.objectives.base import Samples
from atomrl.core.objectives.forward import ForwardObjective, Predictions
from atomrl.core.objectives.forward_options import AWMOptions, NFTOptions, RejectionOptions
from atomrl.core.objectives.nft import NFT
from atomrl.core.objectives.rejection import Rejection
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.protocols import DiffusionPolicy
from atomrl.core.records import Trajectory
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.policies.crystal import CrystalPolicy
from atomrl.policies.molecule import MoleculePolicy
from atomrl.policies.toy import LearnedStdGaussian, SubspaceGaussian


def inner(found: Predictions, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Mean over a sample's elements of a product, by a loop over samples."""
    rows = [(left[row, : int(n)] * right[row, : int(n)]).mean() for row, n in enumerate(found.mask.sum(1))]
    return torch.stack(rows)


@pytest.mark.parametrize("b", [0.1, 1.0])
@pytest.mark.parametrize("c", [1.0, 5.0])
def test_nft_is_a_weighed_denoising_gradient_and_a_pull_back(b: float, c: float) -> None:
    """2 A <eps_old - eps, d> + c b mean d^2 + what does not depend on the current policy."""
    objective = NFT(NFTOptions(b=b, clip_advantage=c, **PLAIN), nothing)
    found = predictions()
    advantages = c * found.advantages
    moved = found.current - found.old
    expansion = 2 * advantages * inner(found, found.old - found.target, moved) + c * b * inner(found, moved, moved)
    at_old = objective.draw_loss(replace(found, current=found.old)).loss
    assert torch.allclose(objective.draw_loss(found).loss - at_old, expansion, atol=1e-12)


@pytest.mark.parametrize("self_normalized", [True, False])
def test_nft_compares_clean_samples_as_published(self_normalized: bool) -> None:
    """l of (z_t - sigma e) / alpha against x_0, written out sample by sample."""
    found, b, c = predictions(), 0.3, 5.0
    options = NFTOptions(b=b, clip_advantage=c, self_normalized=self_normalized, max_time_weight=math.inf)
    loss = NFT(options, nothing).draw_loss(found).loss.detach()
    clean = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    for row, atoms in enumerate([4, 3, 1]):
        alpha, sigma = float(found.signal[row]), float(found.noise[row])
        x0, eps = clean[row, :atoms], found.target[row, :atoms]
        noised, good = alpha * x0 + sigma * eps, (1 + float(found.advantages[row])) / 2
        total = 0.0
        for weight, sign in ((good, 1), (1 - good, -1)):
            noise = (1 - sign * b) * found.old[row, :atoms] + sign * b * found.current.detach()[row, :atoms]
            error = (noised - sigma * noise) / alpha - x0
            divisor = max(float(error.abs().mean()), 1e-5) if self_normalized else 1.0
            total += weight * float(error.square().mean()) / divisor
        assert float(loss[row]) == pytest.approx(c * total / b, rel=1e-9)


def test_a_time_near_noise_weighs_no_more_than_its_bound() -> None:
    found = predictions()
    free, bound = (NFT(NFTOptions(max_time_weight=limit), nothing).time_weight(found) for limit in (1e9, 2.0))
    assert float(free[2]) > 2
    assert torch.equal(bound, free.clamp(max=2.0))


def test_awm_as_published() -> None:
    """A ratio of exp(-w l), clipped against the advantage's sign, and the distance to the old policy."""
    found = predictions()
    for options in (
        AWMOptions(clip_range=0.02, old_weight=0.5),
        AWMOptions(clip_range=1.0, time_weighting="t", power=0.25, old_weight=0.0),
    ):
        loss = AWM(options, nothing).draw_loss(found).loss.detach()
        for row, atoms in enumerate([4, 3, 1]):
            share, eps = float(found.advantages[row]), found.target[row, :atoms]
            new, old = (float((e.detach()[row, :atoms] - eps).square().mean()) for e in (found.current, found.old))
            p, w = options.power, float(found.times[row]) if options.time_weighting == "t" else 1.0
            worth = [-w / p * ((error + 1e-10) ** p - 1e-10**p) for error in (new, old)]
            ratio = math.exp(worth[0] - worth[1])
            clipped = min(max(ratio, 1 - options.clip_range), 1 + options.clip_range)
            distance = float((found.current.detach() - found.old)[row, :atoms].square().mean())
            expected = max(-share * ratio, -share * clipped) + options.old_weight * distance
            assert float(loss[row]) == pytest.approx(expected, rel=1e-9)


OBJECTIVES = {
    "nft": NFT(NFTOptions(clip_advantage=1.0, **PLAIN), nothing),
    "nft, normalised": NFT(NFTOptions(), nothing),
    "awm": AWM(AWMOptions(clip_range=0.2), nothing),
    "awm, power": AWM(AWMOptions(clip_range=0.2, power=0.25, time_weighting="t"), nothing),
}


def at_old(found: Predictions) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each sample at the old policy, (B,): mean squared and mean absolute error, and sigma / alpha up to 3."""
    error = found.old - found.target
    absolute = inner(found, error.abs(), torch.ones_like(error))
    return inner(found, error, error), absolute, (found.noise / found.signal).clamp(max=3.0)


WEIGHTS: dict[str, tuple[ForwardObjective, Callable[[Predictions], torch.Tensor | float]]] = {
    "nft, noise": (NFT(NFTOptions(clip_advantage=2.0, b=0.3, **PLAIN), nothing), lambda found: 2.0),
    "nft, noise, normalised": (
        NFT(NFTOptions(clip_advantage=2.0, time_weighting="noise"), nothing),
        lambda found: 2.0 / at_old(found)[1],
    ),
    "nft, clean": (
        NFT(NFTOptions(self_normalized=False, max_time_weight=9.0), nothing),
        lambda found: 5.0 * at_old(found)[2].square(),
    ),
    "nft, as published": (NFT(NFTOptions(b=0.3), nothing), lambda found: 5.0 * at_old(found)[2] / at_old(found)[1]),
    "awm, flat": (AWM(AWMOptions(clip_range=0.2), nothing), lambda found: 1.0),
    "awm, t": (AWM(AWMOptions(time_weighting="t"), nothing), lambda found: found.times),
    "awm, flat, power": (
        AWM(AWMOptions(power=0.25), nothing),
        lambda found: (at_old(found)[0] + 1e-10) ** -0.75,
    ),
    "awm, t, power": (
        AWM(AWMOptions(time_weighting="t", power=0.5), nothing),
        lambda found: found.times * (at_old(found)[0] + 1e-10) ** -0.5,
    ),
    "rejection": (Rejection(RejectionOptions(kept_fraction=0.4), nothing), lambda found: 1 / 0.4),
}
"""Objectives, and by what factor each weighs a sample's advantage at the old policy."""


@pytest.mark.parametrize("name", WEIGHTS)
def test_at_the_old_policy_all_follow_the_denoising_gradient(name: str) -> None:
    """2 A (eps_old - eps) / elements, the slope of A times the denoising loss, but for a weight of each sample's own.

    The third sample lies so near noise that the bound of its time's weight shows.
    """
    found, (objective, weight) = predictions(), WEIGHTS[name]
    found = replace(found, current=found.old.clone().requires_grad_())
    shares = weight(found) * found.advantages / (found.mask.sum(1) * 5)
    expected = 2 * shares[:, None, None] * (found.old - found.target)
    assert torch.allclose(gradient(objective, found), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_without_an_advantage_nothing_drifts(name: str) -> None:
    """The old policy is a stationary point for a sample of advantage 0."""
    found = predictions(share=[0.0, 0.0, 0.0])
    found = replace(found, current=found.old.clone().requires_grad_())
    assert float(gradient(OBJECTIVES[name], found).abs().max()) < 1e-12


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_padding_does_not_matter(name: str) -> None:
    found, objective = predictions(), OBJECTIVES[name]
    loss = objective.draw_loss(found).loss
    wide = {
        key: torch.cat([value, torch.zeros_like(value[:, :2])], dim=1)
        for key, value in {name: getattr(found, name) for name in ("current", "old", "target", "mask")}.items()
    }
    assert torch.allclose(objective.draw_loss(replace(found, **wide)).loss, loss, atol=1e-12)


def molecule_policy() -> MoleculePolicy:
    """EDM's network with random weights that move atoms, but do not make a walk explode."""
    torch.manual_seed(0)
    return MoleculePolicy(randomized(EDMNetwork(EDMConfig(hidden=16, edge_hidden=8, layers=2)), std=0.03)).double()


def lesson(objective: ForwardObjective, policy: DiffusionPolicy, samples: Samples) -> list[torch.Tensor]:
    """Losses (B,) of samples, and the gradient of their sum.

    By a policy that has left the old one, without which AWM's loss would be minus the advantage whatever it predicts.
    """
    policy.follow(0.0)
    with torch.no_grad():
        for parameter in policy.trainable().parameters():
            parameter.add_(0.003)
    (draw, *_) = objective.terms(Trajectory((), (), (samples.bucket,)), 0)
    losses = objective.loss(policy, samples, draw).loss
    parameters = list(policy.trainable().parameters())
    slopes = torch.autograd.grad(losses.sum(), parameters, materialize_grads=True)
    return [losses.detach(), torch.cat([slope.flatten() for slope in slopes])]


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("kind", ["edm", "subspace"])
def test_where_a_molecule_lies_does_not_matter(name: str, kind: str) -> None:
    """The samples are handed over off their centre: losses and gradients stay, though z_t is somewhere else.

    Nothing like it holds for a crystal: what is noised again is its latent, which the VAE has never seen in space.
    """
    mean = torch.tensor([0.0, 0, 0, 0.3])
    kinds = {"edm": molecule_policy, "subspace": lambda: SubspaceGaussian(mean).double()}

    def differences(make: Callable[[], DiffusionPolicy]) -> list[float]:
        policies = [make(), make()]
        moved = [samples_of(policy, shift=shift) for policy, shift in zip(policies, (0.0, 7.0), strict=True)]
        here, there = (lesson(OBJECTIVES[name], *each) for each in zip(policies, moved, strict=True))
        assert all(float(values.abs().max()) > 1e-3 for values in here)
        return [float((one - other).abs().max()) for one, other in zip(here, there, strict=True)]

    assert max(differences(kinds[kind])) < 1e-9
    assert min(differences(lambda: LearnedStdGaussian(mean).double())) > 1e-5  # it knows where its data lie


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_order_of_atoms_does_not_matter(name: str) -> None:
    """Clean samples, padding and the noises that are added, all in another order: losses and gradients stay.

    Five atoms and a padded place. Nothing like it holds for a crystal, whose network gets the number of each atom.
    """
    kept, turned = [0, 1, 2, 3, 4, 5], [3, 5, 0, 4, 1, 2]

    def ordered(policy: MoleculePolicy | CrystalPolicy, atoms: list[int], noises: list[int]) -> list[torch.Tensor]:
        """`lesson` of samples whose atoms, and the noises of these, are in some order."""
        samples, forward_noise = samples_of(policy, count=16, atoms=5), policy.forward_noise
        clean, mask = (torch.cat([x, torch.zeros_like(x[:, :1])], 1) for x in (samples.clean, samples.bucket.mask))
        bucket = replace(samples.bucket, clean=clean[:, atoms], mask=mask[:, atoms])
        policy.forward_noise = lambda clean, mask, t, normals: forward_noise(clean, mask, t, normals[:, noises])
        return lesson(OBJECTIVES[name], policy, replace(samples, bucket=bucket))

    def differences(make: Callable[[], MoleculePolicy | CrystalPolicy], noises: list[int]) -> list[float]:
        """Largest ones of losses and of the gradient, as shares of the largest of these."""
        pairs = zip(ordered(make(), kept, kept), ordered(make(), turned, noises), strict=True)
        return [float((here - there).abs().max() / here.abs().max()) for here, there in pairs]

    assert max(differences(molecule_policy, turned)) < 1e-9
    assert min(differences(molecule_policy, kept)) > 1e-3  # each atom gets the noise of another
    assert min(differences(lambda: small_policy().double(), turned)) > 1e-3


def test_what_is_added_and_asked_moves_no_molecule() -> None:
    """Noise and predictions of positions have no mean over the atoms."""
    policy = molecule_policy()
    policy.follow(0.0)
    objective, samples = NFT(NFTOptions(), nothing), samples_of(policy, shift=7.0)
    (draw, *_) = objective.terms(Trajectory((), (), (samples.bucket,)), 0)
    found = objective.predictions(policy, samples, draw)
    for values in (found.target, found.current.detach(), found.old):
        assert float(values[..., :3].abs().max()) > 1e-3
        assert float((values[..., :3] * found.mask[..., None]).sum(1).abs().max()) < 1e-12


@pytest.mark.parametrize("cut", [1, 7, 64])
def test_noise_and_times_belong_to_a_sample(cut: int) -> None:
    """However the samples are cut, and whatever else is in the batch."""
    policy = SubspaceGaussian(torch.tensor([0.0, 0, 0, 0.3])).double()
    policy.follow(0.0)
    policy.keep_reference()
    objective = NFT(NFTOptions(reference_weight=0.1), nothing)
    samples = samples_of(policy)
    for draw in objective.terms(Trajectory((), (), (samples.bucket,)), 1):
        whole = objective.loss(policy, samples, draw)
        parts = [objective.loss(policy, samples[at : at + cut], draw) for at in range(0, 64, cut)]
        assert torch.allclose(torch.cat([part.loss for part in parts]), whole.loss, atol=1e-12)
        assert float(whole.counts["moved"].max()) == 0


def test_times_cover_their_range() -> None:
    """Those of a sample one in each of `times` equal parts; those of a draw evenly over the batch; others each pass."""
    objective = NFT(NFTOptions(times=6, min_time=0.1, max_time=0.7), nothing)
    plan = PromptPlan(SizeDistribution({2: 1}), 4, 50, seed=3)
    trajectory = rollout(SubspaceGaussian(torch.zeros(4)), plan.prompts(5), RolloutConfig(2, 200, train_steps=0))
    prompts = trajectory.prompts
    draws = objective.terms(trajectory, 0)
    times = torch.stack([objective.times(prompts, draw) for draw in draws])  # (draws, samples)
    assert bool((times > 0.1).all() & (times <= 0.7).all())
    gaps = times.sort(0).values.diff(dim=0)
    assert torch.allclose(gaps, torch.full_like(gaps, 0.1), atol=1e-9)
    counts = torch.histc(times[0], bins=10, min=0.1, max=0.7)
    assert float((counts - 20).abs().max()) <= 3
    later = objective.terms(trajectory, 1)
    assert [draw.index for draw in later] == [6, 7, 8, 9, 10, 11]
    assert len({draw.offset for draw in (*draws, *later)}) == 12


def test_a_sample_where_the_policy_knows_nothing_does_not_teach() -> None:
    policy = SubspaceGaussian(torch.tensor([0.0, 0, 0, 0.3])).double()
    policy.follow(0.0)
    samples = samples_of(policy)
    far = samples.bucket.clean.clone()
    far[5, :, 3] += 25
    samples = replace(samples, bucket=replace(samples.bucket, clean=far))
    free = NFT(NFTOptions(max_time=0.5), nothing)
    limited = NFT(NFTOptions(max_time=0.5, residual_limit=3.0), nothing)
    (draw, *_) = free.terms(Trajectory((), (), (samples.bucket,)), 0)
    loose, strict = (objective.predictions(policy, samples, draw) for objective in (free, limited))
    assert float(loose.advantages[5]) != 0 == float(strict.advantages[5])
    others = torch.arange(64) != 5
    assert torch.equal(loose.advantages[others], strict.advantages[others])
    assert limited.loss(policy, samples, draw).counts["over_limit"].nonzero().tolist() == [[5]]
    assert "over_limit" not in free.loss(policy, samples, draw).counts


@pytest.mark.parametrize("objective", [NFT, AWM, Rejection])
def test_a_sample_where_the_policy_knows_nothing_counts_less(objective: type) -> None:
    """With its distances to the old and to the initial policy: the bound over its squared error, here about 100."""
    policy = SubspaceGaussian(torch.tensor([0.0, 0, 0, 0.3])).double()
    policy.follow(0.0)
    policy.keep_reference()
    with torch.no_grad():
        policy.current.mean += 0.1
    samples = samples_of(policy)
    far = samples.bucket.clean.clone()
    far[5, :, 3] += 25
    samples = replace(samples, bucket=replace(samples.bucket, clean=far))
    kind = {NFT: NFTOptions, AWM: AWMOptions, Rejection: RejectionOptions}[objective]
    free, bounded = (
        objective(kind(max_time=0.5, reference_weight=0.1, residual_bound=bound), nothing) for bound in (None, 4.0)
    )
    (draw, *_) = free.terms(Trajectory((), (), (samples.bucket,)), 0)
    loose, strict = (made.loss(policy, samples, draw) for made in (free, bounded))
    residual = loose.counts["residual"]
    assert residual.argmax() == 5
    assert float(residual[5]) > 40
    shares = (4 / residual).clamp(max=1)
    assert torch.allclose(strict.loss, shares * loose.loss, rtol=1e-12)
    assert torch.equal(strict.counts["bounded"], (shares < 1).double())
    assert "bounded" not in loose.counts


@pytest.mark.parametrize("advantages", ["channels", "ranks", "sum"])
def test_the_log_says_how_many_advantages_are_beyond_their_bound(advantages: str) -> None:
    settings = {"advantages": advantages, "group_reward_norm": True, "reward_normalize_fn": None, "reward_eps": 1e-4}
    free, bounded = (
        nft.SPEC.make({**settings, "nft": {"clip_advantage": limit}}, {"near": 1.0, "far": 1.0}, 16).advantages(
            *scores()
        )
        for limit in (1e9, 1.0)
    )
    assert torch.equal(bounded.total, free.total.clamp(-1, 1))
    share = float((free.total.abs() > 1).double().mean())
    assert 0.2 < share == bounded.stats["advantage_clip_frac"]
    assert free.stats["advantage_clip_frac"] == 0
