import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atomrl.util.errors import UserError
from tools.prototypes.build import BuildOptions, build, read_records
from tools.prototypes.candidate import REFERENCE, Candidate
from tools.prototypes.command import data_command

TASK = "data.prototype_tasks:relax"
SETTINGS = {"seed": 0, "model_hash": "abc"}


def candidate(name: str) -> Candidate:
    return Candidate.make(REFERENCE, name, {"Na": "Na"})


@pytest.fixture
def calls(tmp_path, monkeypatch):
    path = tmp_path / "calls"
    path.touch()
    monkeypatch.setenv("ATOMRL_TEST_CALLS", str(path))
    return path


def options(tmp_path, **changes) -> BuildOptions:
    return BuildOptions(**{"save": tmp_path / "build", "task": TASK, "timeout": 20.0, **changes})


def test_each_candidate_is_one_line_and_failures_have_a_reason(tmp_path, calls, capsys):
    queue = [candidate(name) for name in ("a", "bad", "c")]
    assert build(queue, options(tmp_path, workers=2), SETTINGS) == 3
    records = {record["prototype"]: record for record in read_records(tmp_path / "build" / "relaxed.jsonl")}
    assert records["a"]["reason"] is None
    assert records["a"]["energy"] == -1.0
    assert records["a"]["key"] == "a|Na>Na"
    assert records["bad"]["reason"] == "overlap"
    assert "energy" not in records["bad"]
    assert "3/3 done" in capsys.readouterr().out


def test_a_candidate_that_hangs_is_killed_and_counted(tmp_path, calls, capsys):
    build([candidate("hang"), candidate("b")], options(tmp_path, timeout=1.0), SETTINGS)
    records = read_records(tmp_path / "build" / "relaxed.jsonl")
    assert [record["reason"] for record in records] == ["timeout", None]
    assert "timeout 1" in capsys.readouterr().out


def test_resume_skips_what_is_done_and_drops_a_partial_line(tmp_path, calls):
    queue = [candidate(name) for name in "abcd"]
    build(queue[:2], options(tmp_path), SETTINGS)
    path = tmp_path / "build" / "relaxed.jsonl"
    with path.open("a") as file:
        file.write('{"key":"c|Na>Na","kin')  # killed while it wrote
    assert build(queue, options(tmp_path), SETTINGS) == 2
    assert [record["prototype"] for record in read_records(path)] == list("abcd")
    assert calls.read_text().split() == list("abcd")
    assert build(queue, options(tmp_path), SETTINGS) == 0


def test_no_new_candidate_after_the_time_is_up(tmp_path, calls):
    queue = [candidate(name) for name in "ab"]
    assert build(queue, options(tmp_path, minutes=0.0), SETTINGS) == 0
    assert build(queue, options(tmp_path), SETTINGS) == 2


def test_other_settings_are_refused(tmp_path, calls):
    build([candidate("a")], options(tmp_path), SETTINGS)
    with pytest.raises(UserError, match="model_hash = abc, now it is def"):
        build([candidate("b")], options(tmp_path), {**SETTINGS, "model_hash": "def"})


def test_no_build_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="atomrl data prototypes build"):
        read_records(tmp_path / "relaxed.jsonl")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["build", "--workers", "0"], "--workers=0: must be at least 1"),
        (["build", "--limit", "0"], "--limit=0: must be at least 1"),
        (["build", "--seed", "-1"], "--seed=-1: must be at least 0"),
        (["build", "--minutes", "0"], "--minutes=0.0: must be positive"),
        (["build", "--minutes", "nan"], "--minutes=nan: must be positive"),
        (["hull", "--judge", "sevennet", "--workers", "-1"], "--workers=-1: must be at least 0"),
    ],
)
def test_numbers_that_cannot_be(words, message, tmp_path):
    with pytest.raises(UserError) as caught:
        data_command([*words, "--save", str(tmp_path / "build")])
    assert str(caught.value) == message
    assert not (tmp_path / "build").exists()


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "relaxed.jsonl").write_bytes(b'{"key": "a"}\n{"key": "b\n')
    with pytest.raises(UserError, match=r"relaxed\.jsonl, line 2 cannot be read"):
        read_records(tmp_path / "relaxed.jsonl")
    (tmp_path / "build.json").write_text('{"seed": 0, "model')
    with pytest.raises(UserError, match=r"build\.json cannot be read .* build into another folder"):
        build([candidate("a")], options(tmp_path, save=tmp_path), SETTINGS)


SCRIPT = """
from pathlib import Path
from data.test_prototypes_build import SETTINGS, candidate, options
from tools.prototypes.build import build
build([candidate(str(n)) for n in range(2000)], options(Path({folder!r})), SETTINGS)
"""


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_killed_build_loses_and_repeats_nothing(tmp_path, calls, kill):
    tests = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])}
    script = SCRIPT.format(folder=str(tmp_path))
    path = tmp_path / "build" / "relaxed.jsonl"
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (path.exists() and path.read_bytes().count(b"\n") > 3) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(kill)
        process.wait()
    content = path.read_bytes()
    done = [json.loads(line)["prototype"] for line in content[: content.rfind(b"\n") + 1].splitlines()]
    assert 3 < len(done) < 2000
    queue = [candidate(str(n)) for n in range(len(done) + 5)]
    build(queue, options(tmp_path), SETTINGS)
    assert sorted(int(record["prototype"]) for record in read_records(path)) == list(range(len(queue)))


def test_a_worker_that_cannot_start_ends_the_build_with_one_line(tmp_path, calls):
    with pytest.raises(UserError, match="cannot start"):
        build([candidate("a")], options(tmp_path, task="data.no_such_module:relax"), SETTINGS)
    assert build([candidate("a")], options(tmp_path), SETTINGS) == 1
