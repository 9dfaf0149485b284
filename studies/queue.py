"""A queue of steps that may be stopped in any way and goes on with the same command.

A step is done when its output is whole; the queue keeps no other state that it would have to believe. One queue at a
time works in a folder: it holds a lock, which its running steps share. So a step that outlives a killed queue is
waited for, not started a second time beside itself.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from atomrl.util.errors import UserError
from studies import records
from studies.records import Record
from studies.steps import StudyStep, threads

POLL = 0.2
"""Seconds between two looks at the running steps."""
REPORT = 60.0
"""Seconds between two lines about them."""
GRACE = 120.0
"""Seconds that an interrupted step has to save and end."""


class StepFailedError(Exception):
    """A step ended without its output.

    Attributes:
        code: exit code for the queue: the step's, or 128 + the signal that ended it.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Running:
    """A step at work.

    Attributes:
        step: which.
        process: its process, leader of its own group.
        started: `time.monotonic()`.
        share: of the work that was done before.
        record: what was written down when it started.
    """

    step: StudyStep
    process: subprocess.Popen[bytes]
    started: float
    share: float
    record: Record

    @property
    def seconds(self) -> float:
        """Since this start."""
        return time.monotonic() - self.started

    def left(self) -> float | None:
        """Expected seconds; None while the output does not tell."""
        share = self.step.output.share()
        if share is None or share <= self.share:
            return None
        return self.seconds * (1 - share) / (share - self.share)


class Queue:
    """Runs steps in order.

    Args:
        steps: a step stands behind those that it needs.
        folder: for logs and records.
        jobs: steps that may run at once.
        keep_going: when a step fails, run the others that do not need it.
    """

    def __init__(self, steps: Sequence[StudyStep], folder: Path, jobs: int = 1, keep_going: bool = False) -> None:
        if jobs < 1:
            raise UserError(f"--jobs {jobs}: must be at least 1")
        self.steps, self.folder, self.jobs, self.keep_going = tuple(steps), folder, jobs, keep_going
        self.started = time.monotonic()
        self.running: list[Running] = []

    def run(self) -> None:
        """Run what is not done.

        Raises:
            StepFailedError: a step failed; the others were interrupted, so that they can continue, or with `keep_going`
                have ended.
            KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP; likewise.
            UserError: the folder holds steps of other settings, or a step that is done after one that is not, or it
                cannot be written.
        """
        with _lock(self.folder) as lock, _signals():
            for step in self.steps:
                records.read(self.folder, step)
            pending = []
            for step in self.steps:
                if step.output.whole():
                    self._say(step, "done before")
                else:
                    pending.append(step)
            self._require_no_older(pending)
            self.started = time.monotonic()
            spoken, failed = self.started, list[StepFailedError]()
            try:
                while pending or self.running:
                    self._start(pending, lock)
                    time.sleep(POLL)
                    for one in tuple(self.running):
                        if one.process.poll() is not None:
                            failed += self._finish(one, pending)
                    if time.monotonic() - spoken > REPORT:
                        spoken = time.monotonic()
                        self._report(pending)
            finally:
                self._stop()
            if failed:
                raise StepFailedError("; ".join(map(str, failed)), failed[0].code)

    def _require_no_older(self, pending: Sequence[StudyStep]) -> None:
        """Raise UserError for a step that is done though one that it needs is not: it is of what was there before."""
        waited = {step.name for step in pending}
        for step in self.steps:
            if step.name not in waited and (gone := waited & set(step.after)):
                raise UserError(
                    f"{step.name} in {self.folder} is done, but {', '.join(gone)}, whose output it was made of, is "
                    f"gone: put that back, or remove the output of {step.name} too"
                )

    def _start(self, pending: list[StudyStep], lock: int) -> None:
        """Start the first steps that need nothing of those that are not done, up to the number of jobs."""
        for step in tuple(pending):
            waits = {other.name for other in (*pending, *(one.step for one in self.running))}
            if len(self.running) < self.jobs and not waits & set(step.after):
                pending.remove(step)
                self._launch(step, lock)

    def _launch(self, step: StudyStep, lock: int) -> None:
        """Start a step; it writes to its log and inherits the lock."""
        before = records.read(self.folder, step) or Record(step.command, ())
        now = records.commit()
        commits = before.commits if before.commits[-1:] == (now,) else (*before.commits, now)
        record = replace(before, commits=commits)
        records.write(self.folder, step, record)
        more = step.output.continuation()
        log = self._log(step)
        log.parent.mkdir(parents=True, exist_ok=True)
        limits = {"OMP_NUM_THREADS": str(threads(self.jobs))} if self.jobs > 1 else {}
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, *step.words, *step.extra, *more],
                env={"PYTHONUNBUFFERED": "1", **limits, **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C reaches it once, through the queue
            )
        self.running.append(Running(step, process, time.monotonic(), step.output.share() or 0.0, record))
        self._say(step, f"{'continues' if more else 'starts'}: {step.command}  (log: {log})")

    def _finish(self, one: Running, pending: list[StudyStep]) -> list[StepFailedError]:
        """Take a step that ended off the list; if it failed, complain, or keep going without those that need it."""
        self._leave(one)
        code, step = one.process.returncode, one.step
        if code == 0 and step.output.whole():
            self._say(step, f"done in {duration(one.seconds)}; {self._remaining(pending)}")
            return []
        how = f"failed with exit code {code}" if code > 0 else f"was ended by signal {-code}"
        if code == 0:
            how = "ended, but its output is not whole"
        code = 128 - code if code < 0 else code or 1
        log = self._log(step)
        error = StepFailedError(f"{step.name} {how}: {_last_line(log)} (log: {log})", code)
        if not self.keep_going:
            raise error
        self._say(step, f"{how}; {self._remaining(_leave_out(step, pending))}")
        return [error]

    def _leave(self, one: Running) -> None:
        """Forget a step that ended, but not its time."""
        self.running.remove(one)
        records.write(self.folder, one.step, replace(one.record, seconds=one.record.seconds + one.seconds))

    def _stop(self) -> None:
        """Interrupt what still runs and wait until it has saved; a second Ctrl-C kills it."""
        for one in self.running:
            one.process.send_signal(signal.SIGINT)
        try:
            for one in self.running:
                one.process.wait(GRACE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            for one in self.running:
                if one.process.poll() is None:
                    os.killpg(one.process.pid, signal.SIGKILL)
                    one.process.wait()
        for one in tuple(self.running):
            self._leave(one)

    def _report(self, pending: Sequence[StudyStep]) -> None:
        """One line about each running step."""
        for one in self.running:
            share = one.step.output.share()
            done = "" if share is None else f"{100 * share:.0f} %, "
            self._say(one.step, f"{done}{duration(one.seconds)} since its start; {self._remaining(pending)}")

    def _remaining(self, pending: Sequence[StudyStep]) -> str:
        """Elapsed time, and what the steps before say about those to come."""
        known, unknown = 0.0, 0
        for one in self.running:
            left, whole = one.left(), self._expected(one.step)
            if left is None and whole is not None:
                left = max(0.0, whole * (1 - one.share) - one.seconds)
            known, unknown = known + (left or 0.0), unknown + (left is None)
        for step in pending:
            seconds = self._expected(step)
            known, unknown = known + (seconds or 0.0), unknown + (seconds is None)
        text = f"{duration(time.monotonic() - self.started)} elapsed"
        if known:
            text += f", about {duration(known / self.jobs)} left"
        return text + (f" and {unknown} step(s) of unknown length" if unknown else "")

    def _expected(self, step: StudyStep) -> float | None:
        """Seconds of a whole step, from running and recorded ones of its kind; None if there are none."""
        seconds = work = 0.0
        for other in self.steps:
            record = records.read(self.folder, other) if other.kind == step.kind else None
            if record is not None and record.seconds and other.output.whole():
                seconds, work = seconds + record.seconds, work + other.work
        for one in self.running:
            left = one.left() if one.step.kind == step.kind else None
            if left is not None:
                seconds, work = seconds + (one.seconds + left) / (1 - one.share), work + one.step.work
        return step.work * seconds / work if work else None

    def _log(self, step: StudyStep) -> Path:
        return self.folder / "logs" / f"{step.name}.log"

    def _say(self, step: StudyStep, text: str) -> None:
        print(f"[{self.steps.index(step) + 1}/{len(self.steps)}] {step.name} {text}", flush=True)


@contextmanager
def ending_like_a_queue() -> Iterator[None]:
    """A command around a queue ends with one line: 2 for a user's mistake, 130 for Ctrl-C, a failed step's own code."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except StepFailedError as error:
        print(f"error: {error}; the same command continues from here", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        print("interrupted; the same command continues from here", file=sys.stderr)
        sys.exit(130)


def duration(seconds: float) -> str:
    """For people."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _leave_out(step: StudyStep, pending: list[StudyStep]) -> list[StudyStep]:
    """The list without the steps that need one, directly or through others."""
    gone = {step.name}
    while more := [other for other in pending if gone & set(other.after)]:
        gone |= {other.name for other in more}
        pending[:] = [other for other in pending if other not in more]
    return pending


def _last_line(log: Path) -> str:
    """Of a log, where a command says what was wrong."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


@contextmanager
def _lock(folder: Path) -> Iterator[int]:
    """The folder's lock, held by this process and by those that it hands the yielded descriptor to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise UserError(f"--folder {folder}: cannot write there ({error.strerror})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: another queue, or a step that it left running, is at work: waiting", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the queue as Ctrl-C does.

    SIGINT gets its handler too: a shell that starts the queue in the background makes it ignored, and steps would
    inherit that and could not be interrupted.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
