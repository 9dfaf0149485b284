"""Tasks that stand in for CHGNet's in worker processes."""

import os
import time

import numpy as np

import atomrl.structures.cells  # noqa: F401 - what items are made of: imported before the clock of the first item runs
from atomrl.force_fields.base import Evaluation

XENON, KRYPTON = 54, 36


def fragile(item, **settings):
    """The first atomic number of each crystal as its energy; krypton makes it hang, xenon kills it."""
    numbers = {number for crystal in item for number in crystal.numbers.tolist()}
    if KRYPTON in numbers:
        time.sleep(600)
    if XENON in numbers:
        os._exit(3)
    return [Evaluation(float(crystal.numbers[0]), np.zeros((len(crystal.numbers), 3)), None) for crystal in item]
