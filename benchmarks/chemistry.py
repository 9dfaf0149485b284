"""Stability against a Python double loop, and the xTB pool with two workers against one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np

from atomrl.core.records import Structures
from atomrl.data.batches import MoleculeBatch, pad
from atomrl.data.qm9 import load_qm9, split
from atomrl.force_fields.base import Evaluation
from atomrl.force_fields.xtb import XTBForceField
from atomrl.structures.molecules import split as split_geometries
from atomrl.workers.local import LocalWorkers
from benchmarks import plain_stability
from benchmarks.timing import Ratio, interleaved


def stability(molecules: int) -> Ratio:
    """Stability and valence errors of QM9 test molecules; raises ValueError if the two ways disagree."""
    found = plain_stability.compare(_molecules(molecules))
    name = f"stability and valence, {molecules} molecules"
    return Ratio(name, found["plain_s"], found["vectorised_s"], 100.0, "nothing")


@dataclass(frozen=True)
class ParentTime:
    """Processor time of the process that hands out molecules, for each: what workers share a core with.

    Attributes:
        workers: that it hands them out to.
        milliseconds: per molecule, the least of all turns; checks and results included, its children's time not.
        target: the most that is asked for.
    """

    workers: int
    milliseconds: float
    target: float = 0.1

    def line(self) -> str:
        """One row of the table under `HEADER`."""
        name = f"processor time here, {self.workers} worker(s)"
        return f"{name:<40}{self.milliseconds:9.3f} ms per molecule, at most {self.target:g}"


def xtb_pool(molecules: int, turns: int) -> Iterator[Ratio | ParentTime]:
    """Forces of QM9 test molecules by one worker (in the place of the plain way) and by two."""
    batch = _molecules(molecules)
    structures = Structures(batch.numbers, batch.positions, batch.mask.bool())
    spent: dict[int, list[float]] = {1: [], 2: []}

    def evaluate(force_field: XTBForceField, workers: int) -> list[Evaluation]:
        begin = time.process_time()
        results = force_field.evaluate(structures)
        spent[workers].append(time.process_time() - begin)
        return results

    with closing(XTBForceField(workers=1)) as one, closing(XTBForceField(workers=2)) as two:
        difference = _largest_difference(one.evaluate(structures), two.evaluate(structures))  # also starts the workers
        seconds = interleaved(lambda: evaluate(one, 1), lambda: evaluate(two, 2), turns)
    yield Ratio(f"xTB, {molecules} molecules, 1 / 2 workers", *seconds, 1.8, f"{difference:.0e} eV/Å")
    for workers, times in spent.items():
        yield ParentTime(workers, 1000 * min(times) / molecules)


def xtb_alone(molecules: int, turns: int) -> Ratio:
    """What two processes bring on this machine where nobody hands out the work: each has all its molecules at once.

    The pool cannot bring more. The plain way is both lots in one process.
    """
    batch = _molecules(molecules)
    geometries = split_geometries(Structures(batch.numbers, batch.positions, batch.mask.bool()))
    lots = [list(geometries[start::2]) for start in range(2)]
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(
                LocalWorkers(count).executor("benchmarks.xtb_lots:singlepoints", 600.0, {"max_iterations": 100})
            )
            for count in (1, 2)
        )
        energies = [[outcome.value for outcome in pool.map(lots)] for pool in (one, two)]  # also starts the workers
        seconds = interleaved(lambda: one.map(lots), lambda: two.map(lots), turns)
    difference = float(np.abs(np.concatenate(energies[0]) - np.concatenate(energies[1])).max())
    return Ratio("the same, handed out at once", *seconds, None, f"{difference:.0e} eV")


def _molecules(count: int) -> MoleculeBatch:
    """The first molecules of QM9's test split."""
    return pad(split(load_qm9())["test"].select(np.arange(count)))


def _largest_difference(first: list[Evaluation], second: list[Evaluation]) -> float:
    """Of the forces, eV/Å."""
    return max(float(np.abs(a.forces - b.forces).max()) for a, b in zip(first, second, strict=True))
