"""Tasks that the pool's tests run in workers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from atomrl.workers.failure import Failure


def double(item, factor=2):
    return factor * item


def misbehave(item):
    """Do what the item says."""
    match item:
        case "sleep":
            time.sleep(60)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "fail":
            raise Failure("foreseen")
        case "raise":
            raise ZeroDivisionError("a bug\nin two lines")
        case "unpicklable":
            return lambda: None
        case "chatter":
            sys.stdout.write("x" * 1_000_000)
    return item


def misbehave_all(items):
    """The same for a lot."""
    return [misbehave(item) for item in items]


def lot_sizes(items):
    return [len(items) for _ in items]


def nap(seconds):
    time.sleep(seconds)
    return os.getpid()


def span(seconds):
    """When it began and ended."""
    begin = time.monotonic()
    time.sleep(seconds)
    return begin, time.monotonic()


def note(item):
    """Take a while, and leave a line; `sleep` and `die` as above."""
    path, word = item
    with open(path, "a") as file:
        file.write(f"{word}\n")
    time.sleep(0.001)
    return misbehave(word)


def run_program(path):
    """Run one that takes long, and say who it is."""
    program = subprocess.Popen(["sleep", "60"])
    Path(path).write_text(str(program.pid))
    return program.wait()


def surroundings(_):
    return "torch" in sys.modules, os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"], os.getpid()
