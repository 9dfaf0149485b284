"""Who runs a task over many items, and who hands out such executors: protocols. No torch in here.

The local pool of processes (`local.LocalWorkers`) is one answer; a cluster's scheduler can be another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

TIMEOUT = "timeout"
WORKER_DIED = "worker_died"
EXCEPTION = "error: "
"""How the reason of an item begins whose task raised an exception that it did not foresee."""

PASSING = frozenset({TIMEOUT, WORKER_DIED})
"""Reasons of a failure that another try may not have: no result with one of them is kept for good."""


def may_pass(reason: str | None) -> bool:
    """Whether another try may have no such failure: a worker was lost, or the task raised what somebody may mend."""
    return reason is not None and (reason in PASSING or reason.startswith(EXCEPTION))


@dataclass(frozen=True)
class Outcome:
    """What became of one item.

    Attributes:
        value: what the task returned; None if it failed.
        reason: None if it worked; else `timeout`, `worker_died`, the reason of a `Failure`, or
            `error: TypeName: message` for an exception that the task did not foresee, with the line of the user's code
            that it came from, if it came from one.
    """

    value: Any
    reason: str | None


class Executor(Protocol):
    """Runs one task over many items.

    Outcomes come in the order of the items and depend on nothing but the item. An item that exceeds the time-out or
    kills its worker costs itself only.
    """

    @property
    def workers(self) -> int:
        """How many items it works on at the same time, at most."""

    def map(self, items: Sequence[object]) -> list[Outcome]:
        """Outcomes of the items, in their order, by a task that gets one item.

        Raises:
            UserError: a worker cannot start.
        """

    def map_lots(self, items: Sequence[object], size: int) -> list[Outcome]:
        """Outcomes of the items, in their order, by a task that gets a list of at most `size` and answers with a list.

        A lot without an answer, whatever the reason, goes again item by item (lists of one), so that only the culprit
        stays without a value. The time-out is that of a lot.

        Raises:
            UserError: as `map`.
        """

    def close(self) -> None:
        """Give back workers."""


class Workers(Protocol):
    """Hands out the executors of a run: made once, passed to all who need one."""

    @property
    def count(self) -> int:
        """How many items all executors together work on at the same time."""

    def executor(self, task: str, timeout: float, settings: Mapping[str, Any] | None = None) -> Executor:
        """An executor of one task; whoever asks for it closes it.

        Args:
            task: "module:function", importable where the workers are. The function takes one picklable item, or a list
                of them under `map_lots`, and `settings` as keywords; it returns a picklable value, and raises
                `Failure` for an item that has none. A class stands for a function that takes long to get ready: each
                worker makes an object of it with `settings` before its first item's time begins, and calls that.
            timeout: seconds per item.
            settings: picklable keyword arguments of the function.
        """

    def limited(self, most: int) -> Workers:
        """The same workers for someone who needs no more than `most` at a time."""

    def in_environment(self, python: str) -> Workers:
        """The same workers for tasks that need packages of another environment, with this package and none of ours.

        Args:
            python: its interpreter.

        Raises:
            UserError: there is no such program, or the workers run in one environment only.
        """
