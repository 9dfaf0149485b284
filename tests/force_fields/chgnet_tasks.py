"""Tasks that stand in for CHGNet's in worker processes."""

import os
import time

import atomrl.structures.cells  # noqa: F401 - what items are made of: imported before the clock of the first item runs

XENON, KRYPTON = 54, 36


def fragile(item, **settings):
    """Says what it saw of each crystal; krypton makes it hang, xenon kills it."""
    numbers = {number for crystal in item for number in crystal.numbers.tolist()}
    if KRYPTON in numbers:
        time.sleep(600)
    if XENON in numbers:
        os._exit(3)
    return [f"saw {crystal.numbers[0]}" for crystal in item]
