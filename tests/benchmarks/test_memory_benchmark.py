"""The memory benchmark measures a process of its own, and what the walk adds."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import memory


def test_the_peak_is_that_of_a_fresh_process() -> None:
    ballast = np.ones(150_000_000)  # 1.2 GB in this process must not count
    found = memory.peak(steps=2, samples=2, threads=1)
    assert ballast[0] == 1
    assert 1e8 < found.loaded < found.total < 1.1e9
    assert found.total - found.loaded > 1e6
    assert "4 x 2, T=2" in found.line()
    assert "goal 1.5 GB" in found.line()


def test_a_system_without_proc_tells_its_peak_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = memory._peak_so_far()
    monkeypatch.setattr(memory, "STATUS", tmp_path / "absent")
    assert memory._peak_so_far() >= 0.9 * here  # at least this process's own; its parent's may be larger
    in_bytes = memory._peak_so_far() // 1024
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory._peak_so_far() == pytest.approx(in_bytes, rel=0.1)


def test_the_command_knows_the_part(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def peak(*arguments: int) -> memory.Peak:
        asked.append(arguments)
        return memory.Peak("measured", 300_000_000, 1_250_000_000, 12.0)

    monkeypatch.setattr(memory, "peak", peak)
    for words in (["memory", "--quick"], ["memory"]):
        monkeypatch.setattr(sys, "argv", ["benchmarks", "--threads", "1", *words])
        benchmarks.main()
    assert asked == [(20, 24, 1), (1000, 24, 1)]
    assert "0.95 GB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"), [(["--turns", "0"], "at least 1"), (["reward", "--crystals", "nowhere"], "nowhere")]
)
def test_what_a_user_gets_wrong_ends_with_two(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--threads", "1", *words])
    with pytest.raises(SystemExit) as ended:
        benchmarks.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
