"""Which crystals of a batch are unique, and which are novel, by pymatgen's `StructureMatcher`, in worker processes.

The verdicts are those of the plain loop, `StructureMatcher.fit` over pairs of equal reduced formula, for less work:

- Crystals whose formula is unique in the batch and in the reference are skipped.
- Each crystal is reduced once, a reference once per matcher, and the search for a smaller cell is left out where it
  must fail (`task.may_be_supercell`).
- Two reduced cells of one formula but with different numbers of atoms cannot match: `fit` maps atoms one to one.
- The comparison is pymatgen's on arrays instead of objects, all bases of a lattice at a time.
- What remains is shared out to workers. One that hangs costs one item: that crystal then counts as not unique (not
  novel), with a reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from atomrl.matching.task import Compare
from atomrl.structures.cells import Crystal
from atomrl.util.closeable import Closing
from atomrl.util.progress import bar
from atomrl.workers.executor import PASSING, Outcome, Workers
from atomrl.workers.local import as_workers

TASK = "atomrl.matching.task:run_all"

ITEMS_AT_ONCE = 16
"""Items that a worker gets at a time, at most: each takes a millisecond, and on a busy machine the way to a worker and
back takes several."""

BLOCK = 2048
"""Items between two steps of the progress bar: seconds."""

REFERENCES_AT_ONCE = 8
"""References that one item compares a crystal with: few, since a hang costs the item."""

Formula = tuple[tuple[int, int], ...]
"""Reduced formula: (atomic number, atoms) of each element."""


@dataclass(frozen=True)
class Tolerances:
    """When two crystals count as the same.

    Attributes:
        ltol: of lengths, relative.
        stol: of sites, in units of (volume / atoms)^(1/3).
        angle_tol: of angles, degrees.
    """

    ltol: float = 0.2
    stol: float = 0.3
    angle_tol: float = 5.0


@dataclass(frozen=True)
class Verdicts:
    """One answer per crystal.

    Attributes:
        values: (B,) bool; False where it is not known.
        reasons: why it is not known, one entry per crystal, None where it is.
    """

    values: NDArray[np.bool_]
    reasons: tuple[str | None, ...]


class CrystalMatcher(Closing):
    """Compares crystals with each other and with references; close it, or use it in a `with`.

    The crystals must have passed `crystals.check_cells`.

    Args:
        references: what is known; reduced when a crystal of the same formula comes, and kept.
        workers: of the run, or a number of processes.
        timeout: seconds per lot of items, and per item of a lost lot (an item is one reduction, one pair, or a crystal
            and eight references).
        tolerances: of a match.
    """

    def __init__(
        self,
        references: Iterable[Crystal] = (),
        workers: Workers | int = 1,
        timeout: float = 10.0,
        tolerances: Tolerances | None = None,
    ) -> None:
        self.tolerances = tolerances or Tolerances()
        self._references: dict[Formula, list[Crystal]] = {}
        for crystal in references:
            self._references.setdefault(reduced_formula(crystal), []).append(crystal)
        self._reduced: dict[Formula, list[Outcome]] = {}
        self._executor = as_workers(workers).executor(TASK, timeout)

    def match(self, crystals: Sequence[Crystal]) -> tuple[Verdicts, Verdicts]:
        """Uniqueness and novelty of each crystal.

        Unique is the first of each group of crystals that match; the groups are those of
        `StructureMatcher.group_structures`: a crystal belongs to the first earlier unique one that it matches.
        Novel is a crystal that matches no reference: `fit(reference, crystal)`, in this order, since the matcher's
        tolerances belong to the second, and a few verdicts turn with the order.
        """
        formulas = [reduced_formula(crystal) for crystal in crystals]
        crowd = Counter(formulas)
        asked = [row for row, name in enumerate(formulas) if crowd[name] > 1 or name in self._references]
        reduced = dict(zip(asked, self._reduce([crystals[row] for row in asked], set(formulas)), strict=True))
        unique = self._unique({row: name for row, name in enumerate(formulas) if crowd[name] > 1}, reduced)
        novel = self._novel({row: name for row, name in enumerate(formulas) if name in self._references}, reduced)
        return _verdicts(unique, len(crystals)), _verdicts(novel, len(crystals))

    def close(self) -> None:
        """End the workers."""
        self._executor.close()

    def _unique(self, formulas: dict[int, Formula], reduced: dict[int, Outcome]) -> dict[int, str | None]:
        """Rows that are not unique, each with a reason if it is not known.

        In each round the first crystal of every bucket that is left is unique, and takes out those that it matches.
        """
        lost: dict[int, str | None] = {row: reduced[row].reason for row in formulas if reduced[row].reason is not None}
        buckets: dict[tuple[Formula, int], list[int]] = {}
        for row, name in formulas.items():
            if row not in lost:
                buckets.setdefault((name, len(reduced[row].value.numbers)), []).append(row)
        waiting = [rows for rows in buckets.values() if len(rows) > 1]
        while waiting:
            pairs = [(rows[0], other) for rows in waiting for other in rows[1:]]
            items = [self._item([(reduced[first].value, reduced[other].value)]) for first, other in pairs]
            for (_, other), outcome in zip(pairs, self._map(items), strict=True):
                if outcome.reason is not None or outcome.value:
                    lost[other] = outcome.reason
            waiting = [[row for row in rows[1:] if row not in lost] for rows in waiting]
            waiting = [rows for rows in waiting if len(rows) > 1]
        return lost

    def _novel(self, formulas: dict[int, Formula], reduced: dict[int, Outcome]) -> dict[int, str | None]:
        """Rows that are not novel, each with a reason if it is not known."""
        lost: dict[int, str | None] = {row: reduced[row].reason for row in formulas if reduced[row].reason is not None}
        waiting: dict[int, list[Crystal]] = {}
        for row, name in formulas.items():
            if row in lost:
                continue
            bad = next((known.reason for known in self._reduced[name] if known.reason is not None), None)
            atoms = len(reduced[row].value.numbers)
            waiting[row] = [
                known.value
                for known in self._reduced[name]
                if known.reason is None and len(known.value.numbers) == atoms
            ]
            if bad is not None:  # the reference that could not be reduced might have matched
                lost[row] = f"reference_{bad}"
        while waiting := {row: known for row, known in waiting.items() if known and row not in lost}:
            items = [
                self._item([(other, reduced[row].value) for other in known[:REFERENCES_AT_ONCE]])
                for row, known in waiting.items()
            ]
            for row, outcome in zip(waiting, self._map(items), strict=True):
                if outcome.reason is not None or outcome.value:
                    lost[row] = outcome.reason
            waiting = {row: known[REFERENCES_AT_ONCE:] for row, known in waiting.items()}
        return lost

    def _reduce(self, crystals: Sequence[Crystal], formulas: set[Formula]) -> list[Outcome]:
        """The crystals reduced; and the references of these formulas, if that has not been done, in one go.

        A reference that a time-out or a dead worker cost is tried again in the next batch that asks for its formula.
        """
        done = {name for name, known in self._reduced.items() if not {one.reason for one in known} & PASSING}
        fresh = sorted(self._references.keys() & formulas - done)
        references = [crystal for name in fresh for crystal in self._references[name]]
        outcomes = self._map([*crystals, *references])
        rest = iter(outcomes[len(crystals) :])
        for name in fresh:
            self._reduced[name] = [next(rest) for _ in self._references[name]]
        return outcomes[: len(crystals)]

    def _map(self, items: Sequence[Crystal | Compare]) -> list[Outcome]:
        """Outcomes of the items, which go several at a time: the workers' answers are outcomes themselves."""
        size = max(1, min(ITEMS_AT_ONCE, len(items) // (4 * self._executor.workers)))
        starts = range(0, len(items), BLOCK)
        blocks = bar(starts, "match") if len(starts) > 1 else starts
        outcomes = [found for start in blocks for found in self._executor.map_lots(items[start : start + BLOCK], size)]
        return [outcome.value if outcome.reason is None else outcome for outcome in outcomes]

    def _item(self, pairs: Sequence[tuple[Crystal, Crystal]]) -> Compare:
        """A comparison for a worker."""
        return Compare(pairs, self.tolerances.ltol, self.tolerances.stol, self.tolerances.angle_tol)


def reduced_formula(crystal: Crystal) -> Formula:
    """Elements and their smallest whole numbers of atoms; () for a crystal without atoms."""
    counts = Counter(crystal.numbers.tolist())
    divisor = gcd(*counts.values()) or 1
    return tuple((number, counts[number] // divisor) for number in sorted(counts))


def _verdicts(lost: dict[int, str | None], crystals: int) -> Verdicts:
    """True but for the rows that are lost."""
    values = np.ones(crystals, dtype=np.bool_)
    values[list(lost)] = False
    return Verdicts(values, tuple(lost.get(row) for row in range(crystals)))
