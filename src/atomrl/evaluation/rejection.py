"""Free rejection: what a check without any scoring refuses is drawn again.

The control that a training has to beat even where nothing is scored: for molecules the check is the bond rule, so that
all that is kept is stable; for crystals the cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

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
        structures: of each size of the plan the first that passed, or else the last that was drawn, on the CPU.
        passed: which passed, (B,) bool.
        drawn: walks.
        prompts: what asked for each of these structures, on the CPU.
        walks: that each took, (B,) int64.
    """

    structures: Structures
    passed: Tensor
    drawn: int
    prompts: Prompts
    walks: Tensor

    @property
    def accepted(self) -> Structures:
        """Those that passed."""
        return self.structures[self.passed]


def draw_until_accepted(
    model: Model, plan: SamplePlan, tries: int, accepts: Accepts, device: torch.device, kept: KeptSamples | None = None
) -> Passed:
    """Draw a sample of each size that the plan draws, and again where it does not pass, up to `tries` times.

    Sizes are those of the other columns of an evaluation, also where a size passes seldom. All first tries are drawn,
    then the second ones of those that did not pass, and so on.
    """
    policy, prompts = ready(model, plan, tries, device)
    return until_accepted(policy, prompts, plan, tries, lambda structures, _: accepts(structures), kept)


def until_accepted(
    policy: DiffusionPolicy,
    prompts: Prompts,
    plan: SamplePlan,
    tries: int,
    accepts: AcceptsAsked,
    kept: KeptSamples | None = None,
) -> Passed:
    """What `draw_until_accepted` does, for prompts that are given: `tries` rows in a row for each sample.

    Their `sample_ids` number these rows from 0.
    """
    places = torch.arange(len(prompts)).reshape(-1, tries)  # a sample of the plan, a try
    passed = torch.zeros(len(places), dtype=torch.bool)
    latest = torch.zeros(len(places), dtype=torch.int64)
    parts: list[Structures] = []
    walks, drawn = torch.zeros(len(places), dtype=torch.int64), 0
    for number in range(tries):
        asked = places[~passed, number]
        if not len(asked):
            break
        again = prompts[asked.to(prompts.sizes.device)]
        rows, structures = draw_prompts(policy, again, plan, plan.micro_batch_size, f"try {number + 1}", kept)
        samples = rows.sample_ids // tries
        latest[samples] = drawn + torch.arange(len(asked))
        passed[samples] = accepts(structures, rows)
        walks[samples] += 1
        parts.append(structures)
        drawn += len(asked)
    return Passed(Structures.concatenate(parts)[latest], passed, drawn, prompts.to(CPU)[places[:, 0]], walks)
