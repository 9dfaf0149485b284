"""Samples of an evaluation that is not finished yet, on disk, so that the same command goes on from them.

Sampling and relaxing take most of an evaluation's time, and what a batch becomes depends on its prompts and on the
model alone: an evaluation that was stopped and continued equals one that was not, and one that shares a column with
another can take its samples.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch

from atomrl.core.records import Prompts, Structures, tensors_of
from atomrl.util.errors import UserError, first_line
from atomrl.util.files import require_writable, write_whole

NOTES = "notes"
"""Key of a file's metadata."""

Noted = tuple[Structures, tuple[str | None, ...]]
"""Structures, and a note on each or None."""


class Stored(NamedTuple):
    """What a file holds.

    Attributes:
        tensors: by name.
        notes: on them, as JSON has it.
        lasting: whether it may be kept: a result that a lost worker owes may come another time.
    """

    tensors: Mapping[str, torch.Tensor]
    notes: Any
    lasting: bool = True


@dataclass(frozen=True)
class KeptBatches:
    """The batches that one model makes of one list of prompts, or that are made of samples, a file each.

    Attributes:
        folder: made with the first batch.
    """

    folder: Path

    def get(self, index: int, draw: Callable[[], Structures]) -> Structures:
        """The batch of that number; drawn and kept if it is not there.

        Raises:
            UserError: its file is damaged, or cannot be written.
        """
        return self.get_noted(index, lambda: (draw(), ()))[0]

    def get_noted(self, index: int, make: Callable[[], Noted], passing: Collection[str] = ()) -> Noted:
        """The same with a note on each structure; a batch with a note that is `passing` is not kept, but tried again.

        Raises:
            UserError: as `get`.
        """

        def stored() -> Stored:
            structures, notes = make()
            return Stored(tensors_of(structures), list(notes), not {*notes} & {*passing})

        names = {field.name for field in fields(Structures)}
        found = self.get_stored(index, stored, names - {"cell"})
        return Structures(**{name: found.tensors[name] for name in names & found.tensors.keys()}), tuple(found.notes)

    def get_stored(self, index: int, make: Callable[[], Stored], needed: Collection[str]) -> Stored:
        """The tensors of that number, and notes on them; made, and kept if they may be, if they are not there.

        Args:
            index: number of the file.
            make: makes them.
            needed: names that a file must have.

        Raises:
            UserError: as `get`.
        """
        path = self.folder / f"{index:05d}.safetensors"
        if path.is_file():
            try:
                with safetensors.safe_open(path, "pt") as file:
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                    notes = json.loads((file.metadata() or {}).get(NOTES, "[]"))
            except (safetensors.SafetensorError, OSError, json.JSONDecodeError) as error:
                raise UserError(f"{path} cannot be read ({first_line(error)}): delete it, it is made again") from error
            if missing := sorted({*needed} - tensors.keys()):
                raise UserError(f"{path} lacks {', '.join(missing)}: delete it, it is made again")
            return Stored(tensors, notes)
        made = make()
        if made.lasting:
            tensors = {name: tensor.contiguous() for name, tensor in made.tensors.items()}
            write_whole(path, safetensors.torch.save(tensors, {NOTES: json.dumps(made.notes)}))
        return made


def digest_of(tensors: Mapping[str, torch.Tensor], said: str) -> str:
    """A hash of tensors, with their names, and of what else is said."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    digest.update(said.encode())
    return digest.hexdigest()[:16]


class KeptSamples:
    """All columns of an evaluation.

    Args:
        evaluation: folder of the evaluation's tables; the samples are in a folder `unfinished` in there.
        settings: what the samples depend on besides weights, prompts and the rollout, e.g. the sampler's options.
        shared: folder that keeps them for other evaluations too, instead; it is made, and not deleted.

    Raises:
        UserError: that folder cannot be made, or be written in.
    """

    def __init__(self, evaluation: Path, settings: str = "", shared: Path | None = None) -> None:
        self.folder, self.settings = evaluation / "unfinished" if shared is None else shared, settings
        self.shared = shared is not None
        if shared is not None:
            require_writable(shared, f"--keep {shared}")

    def batches(self, policy: torch.nn.Module, prompts: Prompts, how: object) -> KeptBatches:
        """Those of this policy, these prompts and, by its repr, this way to walk; any others have another folder."""
        said = (prompts.seed, prompts.iteration, how, prompts.sizes.device.type, torch.__version__, self.settings)
        return self._of({**policy.state_dict(), **tensors_of(prompts)}, repr(said))

    def made_from(self, structures: Structures, how: str) -> KeptBatches:
        """Those that are made from these structures, e.g. by a relaxation; `how` says all that they depend on."""
        return self._of(tensors_of(structures), how)

    def forget(self) -> None:
        """Delete all of them, unless they are shared: the evaluation is written."""
        if not self.shared:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _of(self, tensors: Mapping[str, torch.Tensor], said: str) -> KeptBatches:
        """A folder whose name is a hash of all that its batches depend on."""
        return KeptBatches(self.folder / digest_of(tensors, said))

    @contextmanager
    def until_written(self, how_to_go_on: str) -> Iterator[None]:
        """An evaluation; when it is written, nothing is kept for it. Ctrl-C says how to go on (the signal passes)."""
        try:
            yield
        except KeyboardInterrupt:
            print(
                f"\nstopped; what was sampled and judged is kept in {self.folder}: continue with {how_to_go_on}",
                flush=True,
            )
            raise
        self.forget()
