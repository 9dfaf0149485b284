"""The example in the docstring of each public name runs, and shows what it says."""

import doctest
import inspect
from pathlib import Path

import pytest

import atomrl

TRAINING = ("Run", "evaluate", "evaluate_structures", "resume", "train")
"""Names whose example trains or judges."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in TRAINING else ()) for name in atomrl.__all__]
)
def test_the_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it prints is what stands below it; where nothing stands, as below a training, it may print."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__", "atomrl": atomrl, "load_config": atomrl.load_config}
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(getattr(atomrl, name)) or "")
    for example in examples:
        capsys.readouterr()
        exec(compile(example.source, f"atomrl.{name}", "single"), names)
        assert example.want in {"", capsys.readouterr().out}
    assert any(example.want for example in examples)
