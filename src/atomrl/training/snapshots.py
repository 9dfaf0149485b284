"""Checkpoints in memory, from where they are written once it is known which file they belong in."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.plugins.io import TorchCheckpointIO

from atomrl.checkpoints.torch_file import to_bytes


class Snapshots(TorchCheckpointIO):
    """What Lightning writes checkpoints with: here to memory. It reads files as ever."""

    def __init__(self) -> None:
        super().__init__()
        self._last = b""

    def take(self, trainer: lightning.Trainer) -> bytes:
        """The run as it is now, as the content of a checkpoint; the trainer must have this object as a plugin."""
        trainer.save_checkpoint("")
        return self._last

    def save_checkpoint(self, checkpoint: dict[str, Any], path: object, storage_options: object = None) -> None:
        """Keep a checkpoint; it goes to no path (Lightning)."""
        self._last = to_bytes(checkpoint)
