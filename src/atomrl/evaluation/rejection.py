"""Free rejection: what a check without any scoring refuses is drawn again.

The control that a training has to beat even where nothing is scored: for molecules the check is the bond rule, so that
all that is kept is stable; for crystals the cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from atomrl.core.prompts import nth_draw
from atomrl.core.protocols import DiffusionPolicy, Model
from atomrl.core.records import Prompts, Structures
from atomrl.evaluation.evaluate import CPU, SamplePlan, draw_prompts, ready
from atomrl.evaluation.kept_samples import KeptSamples

Accepts = Callable[[Structures], Tensor]
"""Which structures pass, (B,) bool."""

AcceptsAsked = Callable[[Structures, Prompts], Tensor]
"""The same, where that depends on what was asked for."""


@dataclass(frozen=True)
class Passed:
    """What came of it.

    Attributes:
        structures: of each sample the first draw that passed, or else the last one, on the CPU.
        passed: which passed, (B,) bool.
        prompts: of each sample's first draw, on the CPU.
        walks: that each took, (B,) int64.
    """

    structures: Structures
    passed: Tensor
    prompts: Prompts
    walks: Tensor

    @property
    def drawn(self) -> int:
        """Walks in all."""
        return int(self.walks.sum())

    @property
    def accepted(self) -> Structures:
        """Those that passed."""
        return self.structures[self.passed]


LOT = 256
"""Samples that are tried before the next ones are begun, where not all are held in memory. Of more, the later tries, of
the few that are left, fill batches better; of fewer, less is lost with a command that is stopped."""


def in_lots(prompts: Prompts) -> list[Prompts]:
    """Samples cut into lots of `LOT`, in order."""
    return [prompts[start : start + LOT] for start in range(0, len(prompts), LOT)]


def draw_until_accepted(
    model: Model, plan: SamplePlan, tries: int, accepts: Accepts, device: torch.device, kept: KeptSamples | None = None
) -> Passed:
    """Draw a sample of each size that the plan draws, and again where it does not pass, up to `tries` times.

    Sizes are those of the other columns of an evaluation, also where a size passes seldom. All first tries are drawn,
    then the second ones of those that did not pass, and so on.
    """
    policy, prompts = ready(model, plan, 1, device)
    return until_accepted(policy, prompts, plan, tries, lambda structures, _: accepts(structures), kept)


def until_accepted(
    policy: DiffusionPolicy,
    prompts: Prompts,
    plan: SamplePlan,
    tries: int,
    accepts: AcceptsAsked,
    kept: KeptSamples | None = None,
) -> Passed:
    """What `draw_until_accepted` does, for samples that are given.

    What is in memory does not grow with the number of tries.

    Args:
        policy: samples.
        prompts: a row per sample, numbered from 0 on, ids ascending; any of them.
        plan: how to walk.
        tries: walks of a sample at most; `sample_ids` of a walk are those of `prompts.several`.
        accepts: what passes.
        kept: as of `draw_until_accepted`.
    """
    ids, samples = prompts.sample_ids.to(CPU), len(prompts)
    passed = torch.zeros(samples, dtype=torch.bool)
    walks = torch.zeros(samples, dtype=torch.int64)
    latest: Structures | None = None
    for number in range(tries):
        left = (~passed).nonzero().squeeze(1)
        if not len(left):
            break
        again = nth_draw(prompts[left], tries, number)
        rows, structures = draw_prompts(policy, again, plan, plan.micro_batch_size, f"try {number + 1}", kept)
        places = torch.searchsorted(ids, rows.sample_ids // tries)
        passed[places] = accepts(structures, rows)
        walks[places] += 1
        latest = structures[places.argsort()] if latest is None else _replaced(latest, places, structures)
    assert latest is not None
    return Passed(latest, passed, nth_draw(prompts.to(CPU), tries, 0), walks)


def _replaced(structures: Structures, places: Tensor, by: Structures) -> Structures:
    """Structures with those at some places (n,) replaced."""
    rows = torch.arange(len(structures))
    rows[places] = len(structures) + torch.arange(len(places))
    return Structures.concatenate([structures, by])[rows]
