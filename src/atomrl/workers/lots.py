"""Items on their way to workers: a queue that gives out several at a time, and how many that should be."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

LOT_SECONDS = 0.1
"""Seconds that one message keeps a worker busy, about. The parent needs some 0.3 ms of processor time for a message,
beside 0.02 ms for each molecule in it; what a lost worker had finished of a message is computed again."""

LEAST_SECONDS = 0.008
"""Seconds that it keeps one busy at least, also at the end of a batch: a worker idles for about this at most, and what
the parent spends stays small beside it."""

LOT_ITEMS = 64
"""Items of a message, at most."""

SMALL = 16384
"""Bytes of items in one message; a larger item goes alone. A busy worker may be sent this much, since its connection
takes `BUFFER`: a message that fills the connection would make the parent wait for a worker that may hang."""

BUFFER = 4 * SMALL
"""Bytes that a connection is asked to take while nobody reads: two messages with room for the system's own."""


@dataclass(frozen=True)
class Lot:
    """Items of one message.

    Attributes:
        places: of the items in the batch.
        pickled: each item, as a worker reads it: on its own, so that one that cannot be read costs itself only.
    """

    places: tuple[int, ...]
    pickled: tuple[bytes, ...]

    @property
    def small(self) -> bool:
        """Whether a busy worker may be sent it."""
        return sum(map(len, self.pickled)) <= SMALL


class Queue:
    """Items of a batch that no worker has yet, in order; each is pickled when it is first looked at."""

    def __init__(self, items: Sequence[object]) -> None:
        self._items = items
        self._places = deque(range(len(items)))
        self._pickled: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._places)

    def first(self, count: int) -> Lot:
        """The first items: at most `count` of them and `SMALL` bytes, at least one."""
        places: list[int] = []
        room = SMALL
        for place in islice(self._places, count):
            if place not in self._pickled:
                self._pickled[place] = pickle.dumps(self._items[place])
            room -= len(self._pickled[place])
            if places and room < 0:
                break
            places.append(place)
        return Lot(tuple(places), tuple(self._pickled[place] for place in places))

    def remove(self, lot: Lot) -> None:
        """Take off the first items, which went out as this lot."""
        for place in lot.places:
            self._places.popleft()
            del self._pickled[place]

    def put_back(self, places: Sequence[int]) -> None:
        """Items that a lost worker had, and is not blamed for, go first again."""
        self._places.extendleft(reversed(places))


class Pace:
    """Seconds per item as measured, and how many items a message should therefore hold."""

    def __init__(self) -> None:
        self._seconds: float | None = None

    def add(self, items: int, seconds: float) -> None:
        """A worker took so long for so many; the last few answers count most, since batches differ."""
        latest = seconds / items
        self._seconds = latest if self._seconds is None else (self._seconds + latest) / 2

    def size(self, left: int, workers: int) -> int:
        """Items of the next message: one until a worker has answered, and fewer towards the end of the batch.

        Half of what is left goes out evenly, then half of the rest: the last messages are small enough for all workers
        to end at about the same time.
        """
        if self._seconds is None:
            return 1
        each = max(self._seconds, LOT_SECONDS / LOT_ITEMS)
        spread = max(left // (2 * workers), round(LEAST_SECONDS / each))
        return max(1, min(left, round(LOT_SECONDS / each), spread))
