"""Tensors compared, for all checks."""

from __future__ import annotations

import torch
from torch import Tensor


def assert_close(value: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Raise if two tensors differ by more than a tolerance relative to max(1, size)."""
    value, expected = value.detach(), expected.detach()
    same_nan = torch.isnan(value) & torch.isnan(expected)
    scale = max(1.0, float(expected.nan_to_num().abs().max()))
    error = float(torch.where(same_nan, 0.0, (value - expected).abs()).max()) / scale
    assert error <= tolerance, f"{what}: error {error:.2e}, allowed {tolerance:.0e}"
