"""Samples of an evaluation that is not finished yet, on disk, so that the same command goes on from them.

Sampling takes most of an evaluation's time, and what a batch becomes depends on its prompts and on the model alone:
an evaluation that was stopped and continued equals one that was not.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from atomrl.checkpoints.folder import first_line
from atomrl.errors import UserError
from atomrl.files import write_whole
from atomrl.records import Prompts, Structures, tensors_of
from atomrl.rollout import RolloutConfig


@dataclass(frozen=True)
class KeptBatches:
    """The batches that one model makes of one list of prompts, a file each.

    Attributes:
        folder: made with the first batch.
    """

    folder: Path

    def get(self, index: int, draw: Callable[[], Structures]) -> Structures:
        """The batch of that number; drawn and kept if it is not there.

        Raises:
            UserError: its file is damaged, or cannot be written.
        """
        path = self.folder / f"{index:05d}.safetensors"
        if path.is_file():
            try:
                return Structures(**safetensors.torch.load_file(path))
            except (safetensors.SafetensorError, OSError, TypeError) as error:
                raise UserError(f"{path} cannot be read ({first_line(error)}): delete it, it is drawn again") from error
        structures = draw()
        tensors = {name: tensor.contiguous() for name, tensor in tensors_of(structures).items()}
        write_whole(path, safetensors.torch.save(tensors))
        return structures


class KeptSamples:
    """All columns of an evaluation.

    Args:
        evaluation: folder of the evaluation's tables; the samples are in a folder `unfinished` in there.
        settings: what the samples depend on besides weights, prompts and the rollout, e.g. the sampler's options.
    """

    def __init__(self, evaluation: Path, settings: str = "") -> None:
        self.folder, self.settings = evaluation / "unfinished", settings

    def batches(self, policy: torch.nn.Module, prompts: Prompts, config: RolloutConfig) -> KeptBatches:
        """Those of this policy, these prompts and this rollout; any others have another folder."""
        digest = hashlib.sha256()
        for name, tensor in sorted({**policy.state_dict(), **tensors_of(prompts)}.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        said = (prompts.seed, prompts.iteration, config, prompts.sizes.device.type, torch.__version__, self.settings)
        digest.update(repr(said).encode())
        return KeptBatches(self.folder / digest.hexdigest()[:16])

    def forget(self) -> None:
        """Delete all of them: the evaluation is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def until_written(self, how_to_go_on: str) -> Iterator[None]:
        """An evaluation: when it is written, nothing is kept; Ctrl-C says how to go on (its signal passes through)."""
        try:
            yield
        except KeyboardInterrupt:
            print(f"\nstopped; what was sampled is kept in {self.folder}: go on with {how_to_go_on}", flush=True)
            raise
        self.forget()
