"""`atomrl sample`: samples go into their file chunk by chunk, and a command that was stopped goes on.

A chunk is what can be made by itself: what becomes of it depends on its prompts alone, not on what was drawn before. So
what is in memory does not grow with the number of samples, and a file that was stopped and continued is that of an
uninterrupted command, byte for byte on a CPU. How chunks are cut and what is made of them is a `Drawing`: samples as
they come (here), the best of several (`chosen`), those that pass a check (`rejected`), crystals of given formulas
(`compositions`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from atomrl.core.prompts import cut_into_buckets
from atomrl.core.protocols import DiffusionPolicy, Model
from atomrl.core.records import Prompts, Structures, tensors_of
from atomrl.evaluation.evaluate import SamplePlan, ready, structures_of
from atomrl.evaluation.kept_samples import digest_of
from atomrl.export.exporter import Exporter
from atomrl.util.closeable import Closing
from atomrl.util.growing_file import Settings, growing
from atomrl.util.progress import bar

KEPT, WRITTEN, BROKEN = "kept", "written", "not finite"
"""Counts of a file: samples that were kept, those of them that its format can hold, and those that are not finite."""

Counts = Mapping[str, int]
"""Numbers that add up over the chunks of a file, by name."""


class Part(NamedTuple):
    """What became of a chunk.

    Attributes:
        structures: that are kept, on the CPU.
        ids: of these, numbers of the wanted samples, int64.
        counts: what it cost.
    """

    structures: Structures
    ids: Tensor
    counts: Counts


@dataclass(frozen=True)
class Wanted:
    """Samples that are wanted, and the model that draws them.

    Attributes:
        policy: on its device.
        prompts: a row per sample, numbered from 0 on, on that device.
        plan: how to walk.
        sampler: its options, which the samples depend on too.
    """

    policy: DiffusionPolicy
    prompts: Prompts
    plan: SamplePlan
    sampler: str

    @classmethod
    def of(cls, model: Model, plan: SamplePlan, device: torch.device, sampler: str) -> Wanted:
        """What a plan wants of a model.

        Raises:
            UserError: as `ready`.
        """
        return cls(*ready(model, plan, 1, device), plan, sampler)

    def settings(self, choice: Settings) -> Settings:
        """What the samples depend on; how they are chosen is said first."""
        assert isinstance(self.policy, torch.nn.Module)
        plan = self.plan
        return {
            **choice,
            "samples": plan.count,
            "time step": plan.time_step,
            "seed": plan.seed,
            "sizes": list(plan.sizes),
            "context": dict(plan.asked),
            "sampler": self.sampler,
            "device": self.prompts.sizes.device.type,
            "torch": torch.__version__,
            "model": digest_of({**self.policy.state_dict(), **tensors_of(self.prompts)}, ""),
        }


class Drawing(Closing):
    """How the samples of a file come about.

    Args:
        wanted: the samples.
        chunks: their prompts, in the order of the file.
        choice: how samples are chosen, and all that this depends on.
    """

    def __init__(self, wanted: Wanted, chunks: Sequence[Prompts], choice: Settings) -> None:
        self.wanted, self.chunks, self.settings = wanted, chunks, wanted.settings(choice)

    @abstractmethod
    def draw(self, chunk: Prompts) -> Part:
        """What becomes of a chunk."""

    def lines(self, counts: Counts) -> list[str]:
        """What to say of the finished file, line by line."""
        return []

    def cost(self, counts: Counts) -> str:
        """What the samples of the finished file cost, as the end of a sentence.

        Raises:
            UserError: there are none.
        """
        return ""

    def close(self) -> None:
        """Give back what is held."""


class AsTheyCome(Drawing):
    """Each sample is drawn once and kept; chunks are buckets of the rollout.

    Args:
        wanted: the samples.
    """

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(wanted, cut_into_buckets(wanted.prompts, wanted.plan.micro_batch_size), {"choice": "none"})

    def draw(self, chunk: Prompts) -> Part:
        """See `Drawing`."""
        plan = self.wanted.plan
        structures = structures_of(self.wanted.policy, chunk, plan.rollout(plan.micro_batch_size))
        return Part(structures, chunk.sample_ids, {})


def not_finite(structures: Structures) -> int:
    """How many have a coordinate, or a cell, that is not finite."""
    finite = structures.finite
    if structures.cell is not None:
        finite = finite & structures.cell.isfinite().flatten(1).all(1)
    return int((~finite).sum())


def sample_into(path: Path, drawing: Drawing, exporter: Exporter) -> Counts:
    """Draw samples into a file; without any sample none is written.

    Args:
        path: of the file.
        drawing: of its samples.
        exporter: of its format.

    Returns:
        `KEPT`, `WRITTEN`, `BROKEN` and the counts of all parts, also of those that an earlier command wrote.

    Raises:
        UserError: as `growing`.
    """
    chunks = drawing.chunks
    ends = list(accumulate(map(len, chunks), initial=0))
    with growing(path, drawing.settings) as file, bar(range(0), "sample", ends[-1]) as progress:
        progress.update(ends[file.parts])
        try:
            for chunk in chunks[file.parts :]:
                structures, ids, counts = drawing.draw(chunk)
                names = [f"{name:05d}" for name in ids.tolist()]
                text, held = exporter.text(structures, names) if names else ("", 0)
                file.append(text, {**counts, KEPT: len(names), WRITTEN: held, BROKEN: not_finite(structures)})
                progress.update(len(chunk))
        except KeyboardInterrupt:
            done, total = ends[file.parts], ends[-1]
            print(f"\nstopped after {done:,} of {total:,} samples: the same command continues from there")
            raise
        if not file.counts[KEPT]:
            file.discard()
        return file.counts
