"""The benchmark's two sides must do the same work: same samples, same gradient."""

import torch

from atomrl.networks.edm import EDMConfig
from benchmarks import edm
from benchmarks.timing import Ratio, interleaved


def test_rollout_and_gradient_agree():
    case = edm.Case.random("tiny", EDMConfig(hidden=16, edge_hidden=8, layers=2), steps=10, samples=2)
    samples, gradient = edm.whole_differences(case)
    assert samples < 1e-8
    assert gradient < 1e-5
    assert edm.one_step_difference(case, edm.ours_rollout(case)) < 1e-5
    assert case.dtype is torch.float32


def test_compare_gives_both_ratios():
    case = edm.Case.random("tiny", EDMConfig(hidden=16, edge_hidden=8, layers=2), steps=2, samples=1)
    rows = edm.compare(case, turns=1, clock="wall", targets=(3.0, None))
    assert [row.name.split(",")[0] for row in rows] == ["rollout", "policy update"]
    assert [row.target for row in rows] == [3.0, None]
    assert all(row.ratio > 0 and row.line() for row in rows)


def test_interleaved_takes_turns():
    calls = []
    interleaved(lambda: calls.append("plain"), lambda: calls.append("ours"), turns=2)
    assert calls == ["plain", "ours"] * 2


def test_ratio_is_plain_over_ours():
    assert Ratio("x", 6.0, 2.0).ratio == 3.0
