"""The benchmark of a GPU: here the CPU stands in for it, so that each of its sides does the same work."""

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import gpu


def test_both_sides_agree_where_both_are_the_cpu():
    rows = list(gpu.measure(torch.device("cpu"), gpu.Size(many=1, few=1, steps=2, crystals=4), turns=1))
    twice = ["rollout", "policy update"]
    assert [row.name.split(",")[0] for row in rows] == [*twice, "rollout", "CHGNet", *twice]
    assert all(row.plain > 0 and row.ours > 0 for row in rows)
    assert [rows[0].agreement, rows[3].agreement] == ["0e+00 after a step", "0e+00 eV/atom"]
    assert "GB of its memory" in gpu.Card("some card", 10**9).line()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_it_says_that_there_is_no_gpu(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", "gpu", "--quick", "--threads", "1"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert "torch sees none" in capsys.readouterr().err
