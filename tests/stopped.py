"""Commands that are stopped in the middle, from outside or in this process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import pytest

from atomrl.cli import main
from atomrl.util.growing_file import GrowingFile


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


def interrupted(parts: int, words: list[str]) -> None:
    """Run a command here, and interrupt it as soon as the file that it writes has so many parts."""
    append = GrowingFile.append

    def stopping(self: GrowingFile, text: str, counts: Mapping[str, int]) -> None:
        append(self, text, counts)
        if self.parts == parts:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GrowingFile, "append", stopping)
        with pytest.raises(SystemExit) as ended:
            main(words)
    assert ended.value.code == 130
