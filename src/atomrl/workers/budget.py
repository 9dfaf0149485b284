"""How many worker processes of all pools of a run work at the same time."""

from __future__ import annotations

import threading


class Budget:
    """Shared by pools, so that two that are busy at the same time do not use each core twice.

    A pool that has work always gets one worker, so nobody waits for the end of another's batch. A pool asks again
    whenever one of its workers answers, and then gives way to those that came later, or takes what others gave back.

    Args:
        count: workers of all pools together.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._lock = threading.Lock()
        self._busy: dict[int, int] = {}

    def claim(self, who: object, busy: int, wanted: int) -> int:
        """How many workers a pool may keep busy from now on.

        Args:
            who: the pool.
            busy: workers that it keeps busy now.
            wanted: workers that it has work for, those included; 0 gives back all.
        """
        with self._lock:
            if wanted == 0:
                self._busy.pop(id(who), None)
                return 0
            others = sum(count for pool, count in self._busy.items() if pool != id(who))
            granted = max(1, min(wanted, self.count - others))
            self._busy[id(who)] = max(busy, granted)
            return granted
