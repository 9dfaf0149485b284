"""`atomrl sample`: samples go into their file batch by batch, and a command that was stopped goes on."""

from __future__ import annotations

from pathlib import Path

import torch

from atomrl.core.prompts import cut_into_buckets
from atomrl.core.protocols import DiffusionPolicy, Model
from atomrl.core.records import Prompts, tensors_of
from atomrl.evaluation.evaluate import SamplePlan, ready, structures_of
from atomrl.evaluation.kept_samples import digest_of
from atomrl.export.exporter import Exporter
from atomrl.util.growing_file import Settings, growing
from atomrl.util.progress import bar


def sample_into(
    path: Path, model: Model, plan: SamplePlan, exporter: Exporter, device: torch.device, sampler: str
) -> int:
    """Draw samples into a file; what is in memory does not grow with their number.

    What a batch becomes depends on its prompts and on the model alone, so that a file that was stopped and continued
    is that of an uninterrupted run, byte for byte on a CPU. Ids are those of the prompts.

    Args:
        path: of the file.
        model: to sample.
        plan: which samples.
        exporter: of the file's format.
        device: to sample on.
        sampler: its options, which the samples depend on too.

    Returns:
        How many samples the file holds.

    Raises:
        UserError: as `ready` and `growing`.
    """
    policy, prompts = ready(model, plan, 1, device)
    config = plan.rollout(plan.micro_batch_size)
    batches = cut_into_buckets(prompts, config.micro_batch_size)
    ends = torch.tensor([0, *map(len, batches)]).cumsum(0).tolist()
    with (
        growing(path, _settings(policy, prompts, plan, sampler)) as file,
        bar(range(0), "sample", len(prompts)) as progress,
    ):
        progress.update(ends[file.parts])
        try:
            for batch in batches[file.parts :]:
                ids = [f"{name:05d}" for name in batch.sample_ids.tolist()]
                file.append(*exporter.text(structures_of(policy, batch, config), ids))
                progress.update(len(batch))
        except KeyboardInterrupt:
            print(
                f"\nstopped after {ends[file.parts]:,} of {len(prompts):,} samples: the same command goes on from there"
            )
            raise
        return file.count


def _settings(policy: DiffusionPolicy, prompts: Prompts, plan: SamplePlan, sampler: str) -> Settings:
    """What the samples depend on."""
    assert isinstance(policy, torch.nn.Module)
    return {
        "samples": plan.count,
        "time step": plan.time_step,
        "seed": plan.seed,
        "sizes": list(plan.sizes),
        "context": dict(plan.asked),
        "sampler": sampler,
        "device": prompts.sizes.device.type,
        "torch": torch.__version__,
        "model": digest_of({**policy.state_dict(), **tensors_of(prompts)}, ""),
    }
