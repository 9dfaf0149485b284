"""Steering an untrained model: a control beside best-of-N, which also scores on the way (`core.steering`)."""

from __future__ import annotations

from dataclasses import replace

import torch

from atomrl.core.prompts import cut_into_buckets
from atomrl.core.protocols import Model
from atomrl.core.records import Prompts, Structures
from atomrl.core.steering import Score, SteeringConfig, steer
from atomrl.evaluation.evaluate import CPU, SamplePlan, drawn_by, in_batches, ready
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.evaluation.panel import Judged, Panel
from atomrl.policies.own import asked_policy


def steered(
    model: Model,
    plan: SamplePlan,
    particles: int,
    config: SteeringConfig,
    score: Score,
    panel: Panel,
    device: torch.device,
    kept: KeptSamples | None = None,
    scored_by: str | None = None,
) -> Judged:
    """The control: walk with so many particles for each sample, resampled on the way, and keep the best of them.

    Sizes are drawn as for the other columns. Walks and scores of a batch of samples are what `atomrl sample --steer`
    makes of the same seed.

    Args:
        model: that walks.
        plan: of the samples.
        particles: of each.
        config: how they walk.
        score: what particles are worth.
        panel: judges the samples.
        device: to walk on.
        kept: of an evaluation that was stopped; new batches are added.
        scored_by: all that scores depend on besides structures and prompts; None: nobody can say, and no batch of
            steered samples is kept.
    """
    policy, prompts = ready(model, plan, particles, device)
    batches = cut_into_buckets(prompts, config.micro_batch_size)
    assert isinstance(policy, torch.nn.Module)
    before = None
    if kept is not None and scored_by is not None:
        before = kept.batches(policy, prompts, (config, scored_by))

    def best(batch: Prompts) -> Structures:
        return steer(asked_policy(policy), batch, config, score).structures.to(CPU)

    structures = in_batches(batches, best, f"steer {particles}", before)
    ones = [batch[::particles] for batch in batches]
    asked = Prompts.concatenate([one[one.group_ids.argsort()] for one in ones]).to(CPU)  # as `steer` has its groups
    judged, drawn = panel.judge(structures, kept, asked), len(prompts)
    scorings = drawn * (1 + len(config.at()))
    return replace(judged, drawn=drawn, scorings=scorings, model=drawn_by(model), asked=plan.asked)
