"""Commands that are stopped in the middle, from outside."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable


def stop_when(reached: Callable[[], bool], words: list[str], how: signal.Signals = signal.SIGKILL) -> None:
    """Run a command in a process of its own, and send it a signal as soon as something holds; it must end by that."""
    command = [sys.executable, "-c", "from atomrl.cli import main; main()", *words]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        try:
            while not reached():
                assert process.poll() is None, "it ended before it could be stopped"
                time.sleep(0.005)
            process.send_signal(how)
            process.wait()
        finally:
            process.kill()
    assert process.returncode == (130 if how == signal.SIGINT else -how)
