"""Samples of one or more seeds in a file of torch.save, for programs that judge them later."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atomrl.checkpoints.torch_file import read_torch
from atomrl.core.records import Structures
from atomrl.util.errors import UserError
from atomrl.util.files import write_whole

COLUMNS = ("numbers", "positions", "mask", "seeds")


@dataclass(frozen=True)
class RolloutFile:
    """What such a file holds.

    Attributes:
        structures: B molecules, on the CPU.
        seeds: of the draw that each is of, (B,) int64.
        about: where they come from: `run`, `checkpoint`, `time_step`, `command`.
    """

    structures: Structures
    seeds: Tensor
    about: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write the file as a whole.

        Raises:
            UserError: it cannot be written.
        """
        held = self.structures
        buffer = io.BytesIO()
        columns = {"numbers": held.numbers, "positions": held.positions, "mask": held.mask, "seeds": self.seeds}
        torch.save({**columns, "about": self.about}, buffer)
        write_whole(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path) -> RolloutFile:
        """Read one; nothing in it runs.

        Raises:
            UserError: it is missing, damaged, or holds something else.
        """
        if not path.is_file():
            raise UserError(f"no {path}: make one with eval_elign_rollout.py --output {path}")
        held = read_torch(path)
        found = [held.get(name) for name in COLUMNS] if isinstance(held, dict) else []
        columns = [column for column in found if isinstance(column, Tensor)]
        if len(columns) != len(COLUMNS):
            raise UserError(f"{path} holds no samples of a rollout ({', '.join(COLUMNS)}): is it another file?")
        numbers, positions, mask, seeds = columns
        batch, atoms = numbers.shape if numbers.ndim == 2 else (0, 0)
        if (positions.shape, mask.shape, seeds.shape) != ((batch, atoms, 3), (batch, atoms), (batch,)) or not batch:
            shapes = ", ".join(f"{name} {tuple(c.shape)}" for name, c in zip(COLUMNS, columns, strict=True))
            raise UserError(f"{path} is damaged: {shapes} do not fit each other")
        return cls(Structures(numbers, positions, mask.bool()), seeds, dict(held.get("about", {})))

    @classmethod
    def concatenate(cls, files: list[RolloutFile]) -> RolloutFile:
        """All samples of several files of other seeds; what is said about them is that of the first.

        Raises:
            UserError: two of them hold a seed, or are of different checkpoints or numbers of steps.
        """
        held = Counter(seed for file in files for seed in file.seeds.unique().tolist())
        if twice := [str(seed) for seed, times in held.items() if times > 1]:
            raise UserError(f"several files hold samples of seed {', '.join(twice)}: give each seed once")
        for name in ("checkpoint", "time_step"):
            if len(found := {str(file.about.get(name)): None for file in files}) > 1:
                raise UserError(f"the files differ in {name}, {' and '.join(found)}: judge them separately")
        joined = Structures.concatenate([file.structures for file in files])
        return cls(joined, torch.cat([file.seeds for file in files]), files[0].about)
