"""The share of signal in a gradient is measured as it was planted."""

import pytest
import torch

from atomrl.core.advantages import Advantages
from atomrl.core.objectives.forward_options import NFTOptions
from atomrl.core.objectives.nft import NFT
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.rollout import RolloutConfig, draw, rollout
from atomrl.policies.toy import LearnedStdGaussian, SubspaceGaussian
from benchmarks import __main__ as benchmarks
from benchmarks.signal import DRAWS, _denoising, _signal


def test_a_planted_signal_is_found() -> None:
    rng = torch.Generator().manual_seed(0)
    shared = torch.nn.functional.normalize(torch.randn(4000, generator=rng), dim=0)
    noise = torch.randn(8, 4000, generator=rng) / 4000**0.5
    found = _signal("draws", 2 * shared + noise, 0.0, 1.0, 3)  # squared lengths: 4 of signal, 1 of noise
    assert found.cosine == pytest.approx(0.8, abs=0.03)
    assert found.length == pytest.approx(5**0.5, rel=0.03)
    nothing = _signal("draws", noise, 0.0, 1.0, 3)
    assert abs(nothing.cosine) < 4 * 4000**-0.5


@pytest.mark.parametrize("kind", [SubspaceGaussian, LearnedStdGaussian])
def test_the_denoising_gradient_is_that_of_the_denoising_loss_times_the_advantage(kind: type) -> None:
    """Of samples in two buckets, whose losses are written out and differentiated."""
    policy = kind(torch.tensor([0.2, -0.1, 0.4, 0.3]), 0.25).double()
    plan = PromptPlan(SizeDistribution({2: 1, 3: 1}), groups=2, samples_per_group=8, seed=4)
    trajectory = rollout(policy, plan.prompts(0), RolloutConfig(10, 8))
    assert [len(bucket) for bucket in trajectory.buckets] == [8, 8]
    advantages = Advantages(torch.linspace(-6, 3, 16, dtype=torch.float64), {})  # one beyond the bound of 5
    for low, high in ((0.1, 0.4), (0.3, 0.9)):  # the second must not hold the first
        found = _denoising(policy, trajectory, advantages, low, high)
        objective = NFT(NFTOptions(times=DRAWS, min_time=low, max_time=high), lambda *_: advantages)
        losses = []
        for term in objective.terms(trajectory, 0):
            for bucket, shares in zip(trajectory.buckets, advantages.total.clamp(-5, 5).split(8), strict=True):
                times = objective.times(bucket.prompts, term)
                assert bool((times > low).all() & (times <= high).all())
                normals = draw(bucket.prompts, "forward", term.index, dtype=torch.float64)(4)
                noised, noise = policy.forward_noise(bucket.clean, bucket.mask, times, normals)
                error = policy.predict(noised, bucket.mask, times, bucket.prompts) - noise
                squared = (error.square() * bucket.mask[..., None]).sum((1, 2)) / (4 * bucket.mask.sum(1))
                losses.append(shares * squared)
        parameters = list(policy.trainable().parameters())
        slopes = torch.autograd.grad(torch.cat(losses).mean(), parameters, materialize_grads=True)
        expected = torch.cat([slope.flatten() for slope in slopes])
        assert float(expected.abs().max()) > 1e-3
        torch.testing.assert_close(found, expected)


def test_the_command_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "signal", "--quick", "--threads", "1"])
    benchmarks.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("gradient of")]
    for arm in ("transitions", "draws"):  # the policy gradient, and the denoising loss of the same samples
        assert len([line for line in lines if f" {arm} " in line]) >= 4
    assert all("cosine" in line and "nan" not in line for line in lines)
