"""The share of signal in a gradient is measured as it was planted."""

import pytest
import torch

from benchmarks import __main__ as benchmarks
from benchmarks.signal import _signal


def test_a_planted_signal_is_found() -> None:
    rng = torch.Generator().manual_seed(0)
    shared = torch.nn.functional.normalize(torch.randn(4000, generator=rng), dim=0)
    noise = torch.randn(8, 4000, generator=rng) / 4000**0.5
    found = _signal("draws", 2 * shared + noise, 0.0, 1.0, 3)  # squared lengths: 4 of signal, 1 of noise
    assert found.cosine == pytest.approx(0.8, abs=0.03)
    assert found.length == pytest.approx(5**0.5, rel=0.03)
    nothing = _signal("draws", noise, 0.0, 1.0, 3)
    assert abs(nothing.cosine) < 4 * 4000**-0.5


def test_the_command_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "signal", "--quick", "--threads", "1"])
    benchmarks.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("gradient of")]
    for arm in ("transitions", "draws"):  # the policy gradient, and the denoising loss of the same samples
        assert len([line for line in lines if f" {arm} " in line]) >= 4
    assert all("cosine" in line and "nan" not in line for line in lines)
