"""Commands that are refused."""

import pytest

from atomrl.cli import main


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a refused command prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    return line
