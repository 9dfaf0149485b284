"""The queue, with small commands that run as real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from atomrl.util.errors import UserError
from studies.queue import Queue, StepFailedError
from studies.records import read
from studies.steps import StudyStep, TrainedRun

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class OneFile:
    """Done when the file says `done`; a file that says less can be continued."""

    path: Path

    def whole(self):
        return self.path.is_file() and self.path.read_text().endswith("done")

    def share(self):
        return 0.5 if self.path.is_file() else 0.0

    def continuation(self):
        return ("resume",) if self.path.is_file() else ()


def step(folder, name, code="", after=(), end="done"):
    """A step that notes its name, runs `code` and leaves its output; `more` are the words that the queue appended."""
    script = (
        "import sys, time, pathlib; folder = pathlib.Path(sys.argv[1]); more = sys.argv[2:]\n"
        f"(folder / 'order').open('a').write('{name} ')\n{code}\n(folder / '{name}').write_text('{end}')"
    )
    return StudyStep(name, "fake", ("-c", script, str(folder)), OneFile(folder / name), after)


def order(folder):
    return (folder / "order").read_text().split()


def test_runs_in_order_and_skips_what_is_done(tmp_path, capsys):
    (tmp_path / "b").write_text("done")
    Queue([step(tmp_path, name) for name in "abc"], tmp_path).run()
    assert order(tmp_path) == ["a", "c"]
    assert "[2/3] b done before" in capsys.readouterr().out
    Queue([step(tmp_path, name) for name in "abc"], tmp_path).run()
    assert order(tmp_path) == ["a", "c"]


def test_failure_stops_the_queue_and_the_same_steps_continue(tmp_path, capsys):
    code = "if not more: (folder / 'b').write_text('half'); print('reason', file=sys.stderr); sys.exit(3)"
    steps = [step(tmp_path, "a"), step(tmp_path, "b", code), step(tmp_path, "c")]
    with pytest.raises(StepFailedError, match="b failed with exit code 3: reason") as failed:
        Queue(steps, tmp_path).run()
    assert failed.value.code == 3
    assert order(tmp_path) == ["a", "b"]
    Queue(steps, tmp_path).run()
    assert order(tmp_path) == ["a", "b", "b", "c"]
    assert "b continues" in capsys.readouterr().out


def test_success_without_output_is_a_failure(tmp_path):
    with pytest.raises(StepFailedError, match="a ended, but its output is not whole") as failed:
        Queue([step(tmp_path, "a", end="half")], tmp_path).run()
    assert failed.value.code == 1


def test_death_by_signal_is_a_failure(tmp_path):
    with pytest.raises(StepFailedError, match="was ended by signal 9") as failed:
        Queue([step(tmp_path, "a", "import os; os.kill(os.getpid(), 9)")], tmp_path).run()
    assert failed.value.code == 137


def test_two_jobs_run_at_once_but_not_before_what_they_need(tmp_path):
    meet = (
        "(folder / f'{other}-is-there').touch()\n"
        "for _ in range(600):\n    if (folder / f'{me}-is-there').exists(): break\n    time.sleep(0.05)\n"
        "else: sys.exit(1)"
    )
    a, b = (f"me, other = {pair!r}\n{meet}" for pair in (("a", "b"), ("b", "a")))
    last = step(tmp_path, "last", "assert (folder / 'a').exists()", after=("a",))
    Queue([step(tmp_path, "a", a), last, step(tmp_path, "b", b)], tmp_path, jobs=2).run()
    assert order(tmp_path)[-1] == "last"


def test_a_failure_interrupts_the_other_job(tmp_path):
    slow = "try: time.sleep(60)\nexcept KeyboardInterrupt: (folder / 'saved').touch(); sys.exit(130)"
    fail = "while not (folder / 'order').read_text().count('slow'): time.sleep(0.05)\ntime.sleep(0.3); sys.exit(2)"
    with pytest.raises(StepFailedError, match="fail failed with exit code 2"):
        Queue([step(tmp_path, "slow", slow), step(tmp_path, "fail", fail)], tmp_path, jobs=2).run()
    assert (tmp_path / "saved").exists()


def test_steps_that_need_none_that_failed_may_go_on(tmp_path, capsys):
    """Those that do need it, also through another, do not start; the error says all that failed."""
    fails = [step(tmp_path, "a", "sys.exit(3)"), step(tmp_path, "d", "sys.exit(4)")]
    needing = [step(tmp_path, "b", after=("a",)), step(tmp_path, "c", after=("b",))]
    with pytest.raises(StepFailedError, match=r"^a failed with exit code 3: .*; d failed with exit code 4: ") as failed:
        Queue([fails[0], *needing, fails[1], step(tmp_path, "e")], tmp_path, keep_going=True).run()
    assert failed.value.code == 3
    assert order(tmp_path) == ["a", "d", "e"]
    assert "[1/5] a failed with exit code 3; " in capsys.readouterr().out


def test_other_settings_are_refused_once_there_is_output(tmp_path):
    Queue([step(tmp_path, "a")], tmp_path).run()
    assert read(tmp_path, step(tmp_path, "a")).seconds > 0
    with pytest.raises(UserError, match="holds a of other settings"):
        Queue([step(tmp_path, "a", "x = 1")], tmp_path).run()
    (tmp_path / "a").unlink()
    Queue([step(tmp_path, "a", "x = 1")], tmp_path).run()
    assert order(tmp_path) == ["a", "a"]


def test_what_was_made_of_an_output_that_is_gone_is_not_taken_for_done(tmp_path):
    steps = [step(tmp_path, "a"), step(tmp_path, "b", after=("a",))]
    Queue(steps, tmp_path).run()
    (tmp_path / "a").unlink()
    with pytest.raises(UserError, match=r"b in .* is done, but a, whose output it was made of, is gone"):
        Queue(steps, tmp_path).run()
    (tmp_path / "b").unlink()
    Queue(steps, tmp_path).run()
    assert order(tmp_path) == ["a", "b", "a", "b"]


def test_no_jobs_and_no_folder(tmp_path):
    with pytest.raises(UserError, match="--jobs 0"):
        Queue([], tmp_path, jobs=0)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write there"):
        Queue([step(tmp_path, "a")], tmp_path / "file" / "below").run()


def queue_process(folder, code):
    """A queue with one step, in a process of its own."""
    here = str(Path(__file__).parent)
    script = (
        f"import sys, pathlib; sys.path.insert(0, {here!r})\n"
        f"from test_study_queue import step, Queue\nfolder = pathlib.Path({str(folder)!r})\n"
        f"try: Queue([step(folder, 'a', {code!r})], folder).run()\nexcept KeyboardInterrupt: sys.exit(130)"
    )
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_save(tmp_path, number):
    code = (
        "try:\n    (folder / 'ready').touch(); time.sleep(60)\n"
        "except KeyboardInterrupt: (folder / 'saved').touch(); sys.exit(130)"
    )
    process = queue_process(tmp_path, code)
    wait_for(tmp_path / "ready")
    process.send_signal(number)
    assert process.wait(30) == 130
    assert (tmp_path / "saved").exists()
    process.stdout.close()


def test_a_killed_queue_goes_on_and_nothing_runs_twice(tmp_path):
    code = "while not (folder / 'go').exists(): time.sleep(0.02)"
    process = queue_process(tmp_path, code)
    wait_for(tmp_path / "order")
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    process.stdout.close()
    again = queue_process(tmp_path, code)
    assert "is at work: waiting" in again.stdout.readline()
    (tmp_path / "go").touch()
    assert "a done before" in again.communicate(timeout=60)[0]
    assert again.returncode == 0
    assert order(tmp_path) == ["a"]


def test_a_run_directory_says_whether_it_is_done(tmp_path):
    run = TrainedRun(tmp_path / "run", 3, evaluated=True)
    assert not run.whole()
    assert run.share() == 0
    assert run.continuation() == ()
    run.folder.mkdir()
    (run.folder / "config.yaml").touch()
    assert run.continuation() == ()  # killed before its first checkpoint: starts again
    assert not run.folder.exists()
    run.folder.mkdir()
    run.checkpoint.touch()
    run.metrics.write_text('{"iteration": 0}\n{"iteration": 1}\n{"itera')
    assert run.share() == pytest.approx(2 / 3)
    assert run.continuation() == ("resume=true",)
    run.metrics.write_text("".join(json.dumps({"iteration": row}) + "\n" for row in range(3)))
    assert not run.whole()
    run.table.parent.mkdir()
    run.table.touch()
    assert run.whole()
    assert not TrainedRun(run.folder, 3, evaluated=True, beside=("evaluation_relaxed.json",)).whole()
    run.checkpoint.unlink()
    assert not run.whole()
    with pytest.raises(UserError, match=r"no checkpoint_latest\.pth: put it back"):
        run.continuation()
    assert run.table.is_file()


def test_steps_do_not_import_torch():
    code = "import sys, studies.queue, studies.studies, studies.steps; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, check=False).returncode == 0
