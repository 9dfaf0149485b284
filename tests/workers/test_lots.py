"""Several items in one message: how many, and that a message to a busy worker never waits."""

import os

import pytest

from atomrl.workers.lots import LEAST_SECONDS, LOT_ITEMS, LOT_SECONDS, SMALL, Pace, Queue
from atomrl.workers.worker_process import connected


def paced(seconds):
    pace = Pace()
    pace.add(1, seconds)
    return pace


def sizes(pace, items, workers):
    """Of all messages of a batch."""
    found = []
    while items:
        found.append(pace.size(items, workers))
        items -= found[-1]
    return found


def test_items_go_alone_until_a_worker_has_answered():
    assert sizes(Pace(), 5, 2) == [1] * 5


@pytest.mark.parametrize(
    ("seconds", "most"), [(10.0, 1), (LOT_SECONDS, 1), (LOT_SECONDS / 10, 10), (1e-6, LOT_ITEMS), (0.0, LOT_ITEMS)]
)
def test_a_message_is_work_for_a_while(seconds, most):
    assert paced(seconds).size(100_000, 2) == most


def test_the_last_items_are_spread():
    """No message holds more than its worker's share of half of what is left, unless it is too little work."""
    found = sizes(paced(LOT_SECONDS / 10), 400, 4)
    assert found[0] == 10
    assert found[-8:] == [1] * 8
    left = 400
    for size in found:
        assert size <= max(1, left / 8)
        left -= size


def test_a_message_is_not_too_little_work():
    assert min(sizes(paced(LEAST_SECONDS / 4), 400, 4)[:-1]) == 4


def test_the_pace_follows_the_batches():
    pace = paced(1.0)  # the first one loads its parameters
    for _ in range(12):
        pace.add(10, 0.01)
    assert pace.size(1000, 1) > LOT_ITEMS / 2


def test_a_large_item_goes_alone_and_small_ones_fill_a_message():
    queue = Queue([b"x" * 100, b"x" * SMALL, *[b"x" * 5000] * 4])
    seen = []
    while queue:
        lot = queue.first(LOT_ITEMS)
        queue.remove(lot)
        seen.append((lot.places, lot.small))
    assert seen == [((0,), True), ((1,), False), ((2, 3, 4), True), ((5,), True)]


def test_what_is_put_back_goes_first():
    queue = Queue("abcdef")
    lot = queue.first(4)
    queue.remove(lot)
    queue.put_back([1, 3])
    assert queue.first(10).places == (1, 3, 4, 5)


def test_a_connection_takes_two_messages_that_nobody_reads():
    """The one that its worker has not yet read, and the one that is sent ahead: the parent never waits for a worker."""
    ours, theirs = connected()
    os.set_blocking(ours.fileno(), False)
    with ours, theirs:
        for _ in range(2):
            ours.send_bytes(b"x" * (SMALL + 2048))  # the items, and what pickle adds to them
        assert len(theirs.recv_bytes()) == SMALL + 2048
