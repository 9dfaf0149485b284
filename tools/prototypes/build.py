"""Relaxes the candidates in worker processes; stopped and started at will.

Each finished candidate is one line of `SAVE/relaxed.jsonl`: the candidate's fields with the relaxation's, or with the
`reason` of its failure. A restart skips what has a line.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from atomrl.data.prototype_notes import read_notes
from atomrl.util.errors import UserError
from atomrl.util.files import drop_partial_line, write_json
from atomrl.workers.executor import Outcome
from atomrl.workers.local import LocalWorkers
from atomrl.workers.pool import WorkerPool
from tools.prototypes.candidate import Candidate

RELAX = "tools.prototypes.relax:relax_candidate"
TIMEOUT = 240.0
"""Seconds per candidate at which its worker is killed. The relaxation itself stops after 60 of processor time."""

START_TIMEOUT = 300.0
"""Seconds for a worker's imports; some compete with as many relaxations as there are processors."""

STARTS = 5
"""How often in a row a worker may fail to start: a machine that is busy for a while delays its imports too long."""

REPORT_EVERY = 60.0
"""Seconds between progress lines."""


@dataclass(frozen=True)
class BuildOptions:
    """How to run a build.

    Attributes:
        save: folder of the results.
        workers: processes, one thread each.
        minutes: stop starting new candidates after this long; None for no limit.
        task: what the workers run, "module:function".
        timeout: seconds per candidate.
    """

    save: Path
    workers: int = 1
    minutes: float | None = None
    task: str = RELAX
    timeout: float = TIMEOUT


def build(queue: Sequence[Candidate], options: BuildOptions, settings: dict[str, Any]) -> int:
    """Relax the candidates that have no line yet.

    Args:
        queue: all candidates, first ones first.
        options: how.
        settings: what the results depend on (seed, model hash); a folder that was built with others is refused.

    Returns:
        How many were finished by this call.

    Raises:
        UserError: the folder belongs to other settings, or cannot be written.
    """
    _claim(options.save / "build.json", settings)
    path = options.save / "relaxed.jsonl"
    drop_partial_line(path)
    done = {record["key"] for record in read_records(path)} if path.exists() else set()
    left = deque(candidate for candidate in queue if candidate.key not in done)
    print(f"{len(queue)} candidates, {len(queue) - len(left)} done, {len(left)} to do", flush=True)
    if not left:
        return 0
    progress = _Progress(len(left))
    with path.open("a", encoding="utf-8") as file:
        for candidate, outcome in _relaxed(left, options):
            _append(file, _record(candidate, outcome))
            progress.add(outcome)
    progress.report()
    return progress.finished


def read_records(path: Path) -> list[dict[str, Any]]:
    """The lines of `relaxed.jsonl`.

    Raises:
        UserError: there is no such file, or a line of it is none of a build's.
    """
    if not path.exists():
        raise UserError(f"no relaxed structures at {path}; run `atomrl data prototypes build --save {path.parent}`")
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path}, line {number} cannot be read ({error}): delete it, and the next "
                "`atomrl data prototypes build` does its candidate again"
            ) from error
        records.append(record)
    return records


def _relaxed(left: deque[Candidate], options: BuildOptions) -> Iterator[tuple[Candidate, Outcome]]:
    """Candidates with their outcomes as they finish; each pool has one worker, so none waits for another."""
    end = time.monotonic() + 60 * options.minutes if options.minutes is not None else float("inf")
    worker = LocalWorkers(1, START_TIMEOUT)
    pools = [worker.executor(options.task, options.timeout) for _ in range(min(options.workers, len(left)))]
    running: dict[Future[list[Outcome]], tuple[Candidate, WorkerPool]] = {}
    failed_starts = 0

    def start(pool: WorkerPool) -> None:
        if left and time.monotonic() < end:
            candidate = left.popleft()
            running[pool.submit([asdict(candidate)])] = (candidate, pool)

    try:
        for pool in pools:
            start(pool)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                candidate, pool = running.pop(future)
                if isinstance(future.exception(), UserError) and failed_starts < STARTS:
                    failed_starts += 1
                    left.appendleft(candidate)
                    start(pool)
                    continue
                failed_starts = 0
                start(pool)
                yield candidate, future.result()[0]
    finally:  # Ctrl-C too: what is running is lost and done again by the next call
        for pool in pools:
            pool.close()


def _record(candidate: Candidate, outcome: Outcome) -> dict[str, Any]:
    """One line of the results."""
    record = {"key": candidate.key, **asdict(candidate), "reason": outcome.reason}
    return record if outcome.reason is not None else {**record, **outcome.value}


def _append(file: IO[str], record: dict[str, Any]) -> None:
    """Write one line, at once."""
    file.write(json.dumps(record, separators=(",", ":")) + "\n")
    file.flush()


def _claim(path: Path, settings: dict[str, Any]) -> None:
    """Note the settings of a new build, or compare them with those of the build that is resumed."""
    if not path.exists():
        write_json(path, settings)
        return
    found = read_notes(path, "build into another folder")
    different = sorted(name for name in {*found, *settings} if found.get(name) != settings.get(name))
    if different:
        name = different[0]
        raise UserError(
            f"{path.parent} was built with {name} = {found.get(name)}, now it is {settings.get(name)}; "
            "use the same, or another folder"
        )


class _Progress:
    """Prints how many are done, how fast, and why others failed."""

    def __init__(self, total: int) -> None:
        self.finished = 0
        self._total = total
        self._started = self._reported = time.monotonic()
        self._reasons: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self.finished += 1
        if outcome.reason is not None:
            self._reasons[outcome.reason.partition(": ")[0]] += 1
        if time.monotonic() - self._reported >= REPORT_EVERY:
            self.report()

    def report(self) -> None:
        """Print a line."""
        self._reported = time.monotonic()
        seconds = (self._reported - self._started) / max(1, self.finished)
        failures = ", ".join(f"{reason} {count}" for reason, count in self._reasons.most_common()) or "none"
        hours = seconds * (self._total - self.finished) / 3600
        print(
            f"{self.finished}/{self._total} done, {seconds:.2f} s each, {hours:.1f} h left; failures: {failures}",
            flush=True,
        )
