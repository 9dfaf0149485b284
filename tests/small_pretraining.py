"""What the tests of pre-trainings share: options that take seconds on the small crystal set, and Ctrl-C."""

import signal
from collections.abc import Iterator

import pytest

SMALL = [
    "train.batch_size=3",
    "train.warmup=2",
    "train.decay_steps=1",  # a constant rate up to the last steps, so that a shorter run is the beginning of a longer
    "threads=1",
    "val_every=2",
    "val_batches=1",
    "log_every=1",
]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also in a process that was started to ignore it, as shells do in the background.

    Afterwards a pre-training must have left it so.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    found = signal.signal(signal.SIGINT, before)
    assert found is signal.default_int_handler
