"""Tasks for the matcher's tests, run in workers."""

import time

from atomrl.matching.task import Compare, outcome_of, run
from atomrl.workers.failure import Failure

CAESIUM, LITHIUM = 55, 3


def misbehave_all(items):
    """The task."""
    return [outcome_of(misbehave, item) for item in items]


def misbehave(item):
    """`run`, but it hangs or fails for the reduction of some elements, and hangs for some pairs."""
    if isinstance(item, Compare):
        if any(len(first.numbers) == 1 and LITHIUM in first.numbers for first, _ in item.pairs):
            time.sleep(60)
        return run(item)
    if CAESIUM in item.numbers:
        time.sleep(60)
    if len(item.numbers) == 7:
        raise Failure("reduction")
    return run(item)
