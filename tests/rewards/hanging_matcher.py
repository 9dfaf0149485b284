"""The matcher's task, run in workers, that hangs for some crystals."""

import time

from atomrl.matching.task import Compare, outcome_of, run

CAESIUM, MAGNESIUM = 55, 12


def run_all(items):
    """The task: a crystal of caesium is never reduced, and a pair of magnesium never compared."""
    return [outcome_of(hang, item) for item in items]


def hang(item):
    """`run`, if it comes that far."""
    first = item.pairs[0][0] if isinstance(item, Compare) else item
    if (MAGNESIUM if isinstance(item, Compare) else CAESIUM) in first.numbers:
        time.sleep(60)
    return run(item)
