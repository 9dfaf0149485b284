"""The divergence of Gaussian steps equals torch's own, over real atoms only."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from atomrl.core.log_prob import gaussian_kl, gaussian_log_prob

MASK = torch.tensor([[1.0, 1, 1], [1, 0, 0]], dtype=torch.float64)
SHAPE = (2, 3, 4)


def steps(learned: bool) -> tuple[torch.Tensor, torch.Tensor | float, torch.Tensor, torch.Tensor | float]:
    """Mean and std of two steps."""
    rng = torch.Generator().manual_seed(0)
    mean, other = torch.randn(2, *SHAPE, generator=rng, dtype=torch.float64)
    if not learned:
        return mean, 0.3, other, 0.7
    std, other_std = 0.1 + torch.rand(2, *SHAPE, generator=rng, dtype=torch.float64)
    return mean, std, other, other_std


def reduced(terms: torch.Tensor, reduction: str) -> torch.Tensor:
    """Sum or mean over the elements of each sample's real atoms, one by one."""
    rows = [row[real > 0] for row, real in zip(terms, MASK, strict=True)]
    return torch.stack([row.sum() if reduction == "sum" else row.mean() for row in rows])


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("learned", [False, True], ids=["fixed std", "learned std"])
def test_the_divergence_is_the_closed_form(learned: bool, reduction: str) -> None:
    mean, std, other, other_std = steps(learned)
    found = gaussian_kl(mean, std, other, other_std, MASK, reduction)
    expected = kl_divergence(Normal(mean, std), Normal(other, other_std))
    torch.testing.assert_close(found, reduced(expected, reduction))
    assert torch.equal(gaussian_kl(mean, std, mean, std, MASK, reduction), torch.zeros(2, dtype=torch.float64))
    shifted = gaussian_kl(mean, std, other, std, MASK, reduction)
    torch.testing.assert_close(shifted, reduced((mean - other).square() / (2 * torch.as_tensor(std) ** 2), reduction))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("learned", [False, True], ids=["fixed std", "learned std"])
def test_the_log_probability_is_the_closed_form(learned: bool, reduction: str) -> None:
    mean, std, value, _ = steps(learned)
    found = gaussian_log_prob(value, mean, std, MASK, reduction)
    torch.testing.assert_close(found, reduced(Normal(mean, std).log_prob(value), reduction))


def test_a_reduction_that_is_none() -> None:
    mean, std, other, other_std = steps(learned=False)
    with pytest.raises(ValueError, match="`sum` or `mean`, got 'median'"):
        gaussian_kl(mean, std, other, other_std, MASK, "median")
