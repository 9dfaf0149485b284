"""Progress bars: on a terminal yes, in a log file no, and ELIGN_TQDM=1 forces them on."""

import sys

import pytest

from atomrl.util import progress


@pytest.mark.parametrize(
    ("variable", "terminal", "expected"),
    [(None, False, False), (None, True, True), ("1", False, True), ("0", False, False), ("0", True, True)],
)
def test_when_bars_are_shown(variable, terminal, expected, monkeypatch, capsys) -> None:
    monkeypatch.delenv("ELIGN_TQDM", raising=False)
    if variable is not None:
        monkeypatch.setenv("ELIGN_TQDM", variable)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert progress.shown() is expected
    with progress.hidden():
        assert not progress.shown()
    assert list(progress.bar(range(3), "counting")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert ("counting" in err) is expected
    assert out == ""
