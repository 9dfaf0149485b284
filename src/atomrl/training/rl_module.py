"""The Lightning shell around an iteration: rollout, score, advantages, update.

One Lightning epoch is one iteration with one batch of prompts, so Lightning's own epoch checkpoints resume exactly.
The algorithm is in `rollout`, `objectives` and `update`, which import no Lightning.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from atomrl.collective import current
from atomrl.config import TrainSection
from atomrl.data.batches import Listed
from atomrl.objectives.base import Objective
from atomrl.prompts import PromptPlan
from atomrl.protocols import DiffusionPolicy, Monitor, Reward
from atomrl.records import Prompts, Stats
from atomrl.rollout import RolloutConfig
from atomrl.schedules import follow, lr_factor
from atomrl.scoring import Scorer
from atomrl.training.averaging import move_average
from atomrl.training.documented import DocumentedInterface
from atomrl.training.jsonl import JSONLLogger
from atomrl.training.score_log import summarise
from atomrl.update import AGAINST_EXPLOSIONS, update

log = logging.getLogger(__name__)

REFERENCE = "policy.initial."
"""Prefix of the reference's tensors, see `policies.reference`."""

MANY_MASKED = 0.5
"""A run that leaves out more than this share of an iteration's samples says so."""


class RLModule(DocumentedInterface):
    """Trains a policy by reinforcement learning.

    Args:
        policy: a module, so that its weights are saved; moves in place.
        plan: prompts of each iteration.
        reward: scores the samples.
        objective: FED-GRPO or another.
        sampling: how to sample.
        config: optimizer and update.
        monitor: measures samples for the log, or None.
        card: what a checkpoint says about the backbone, so that it can be loaded alone.

    Attributes:
        line: of the log, for the last iteration.
    """

    def __init__(
        self,
        policy: DiffusionPolicy,
        plan: PromptPlan,
        reward: Reward,
        objective: Objective,
        sampling: RolloutConfig,
        config: TrainSection,
        total_steps: int,
        monitor: Monitor | None = None,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        assert isinstance(policy, nn.Module), "the policy must be a torch module: its weights are saved with the run"
        self.policy, self.plan, self.objective, self.scorer = policy, plan, objective, Scorer(reward)
        self.sampling, self.config, self.total_steps = sampling, config, total_steps
        self.monitor, self.card = monitor, dict(card or {})
        self._warned = False
        self.line: Stats = {}
        if objective.needs_reference:
            policy.keep_reference()
        self.averaged = AveragedModel(policy.trainable(), multi_avg_fn=partial(move_average, config.ema_decay))

    def train_dataloader(self) -> DataLoader[Prompts]:
        """The prompts of the current iteration, as the only batch (Lightning)."""
        prompts = self.plan.prompts(self.trainer.current_epoch)
        share = self.plan.share(prompts, self.global_rank, self.trainer.world_size)
        return DataLoader(Listed([share]), batch_size=None)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW over the trained module, with its schedule (Lightning)."""
        config = self.config
        parameters = [p for p in self.policy.trainable().parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=config.learning_rate, betas=(config.beta1, config.beta2), weight_decay=config.weight_decay
        )
        factor = partial(
            lr_factor,
            kind=config.scheduler,
            warmup=config.warmup_steps,
            total=self.total_steps,
            min_ratio=config.min_lr_ratio,
            decay_fraction=config.decay_fraction,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}

    def on_train_start(self) -> None:
        """Follow this run's schedule, not that of the checkpoint it continues (Lightning)."""
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
        follow(scheduler)

    def training_step(self, batch: Prompts, batch_idx: int) -> None:
        """One iteration (Lightning)."""
        started = time.monotonic()
        batch_gen, trajectory = self.rollout(batch)
        table, advantages = self.compute_rewards(batch_gen)
        scored = time.monotonic()
        optimizer = self.optimizers()
        # Lightning's wrapper passes everything on, and counts the steps.
        assert isinstance(optimizer, LightningOptimizer)
        stats = update(self.policy, trajectory, advantages, self.objective, optimizer, self.config, current())
        self._warn_of_explosions(stats["masked_samples"], batch.iteration)
        self.averaged.update_parameters(self.policy.trainable())
        schedule = self.lr_schedulers()
        assert isinstance(schedule, torch.optim.lr_scheduler.LRScheduler)
        rate = float(schedule.get_last_lr()[0])
        schedule.step()
        times = {"seconds_rollout": scored - started, "seconds_update": time.monotonic() - scored}
        measured = {} if self.monitor is None else self.monitor.measure(trajectory.structures)
        self.line = {**summarise(table), **advantages.stats, **stats, **measured, **times, "lr": rate}
        self.log_dict(self.line, on_step=False, on_epoch=True, batch_size=len(batch))

    def _warn_of_explosions(self, masked: float, iteration: int) -> None:
        """Say once that the run learns from a minority of its samples."""
        samples = self.plan.groups * self.plan.samples_per_group
        if self._warned or masked <= MANY_MASKED * samples or self.global_rank:
            return
        self._warned = True
        log.warning(
            f"iteration {iteration}: {masked:.0f} of {samples} samples ({100 * masked / samples:.0f} %) exploded and "
            f"teach nothing; if this goes on, {AGAINST_EXPLOSIONS}"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the weights are, so that they can be loaded without the run (Lightning)."""
        run = {"iteration": self.trainer.current_epoch, "train": asdict(self.config), "log": dict(self.line)}
        checkpoint["atomrl"] = {**self.card, **run}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Log the checkpoint's iteration, should a kill have come before its line; fit the reference (Lightning).

        The reference is kept only where its KL has a weight, and a resumed run may give it another: one that was not
        kept is as this run begins with it, one that is no longer needed is dropped.
        """
        own, stored = self.state_dict(), checkpoint["state_dict"]
        for name in {*own, *stored}:
            if name.startswith(REFERENCE) and (name in own) != (name in stored):
                stored.pop(name, None)
                stored.update({name: own[name]} if name in own else {})
        card = checkpoint["atomrl"]
        for logger in self.trainer.loggers:
            if isinstance(logger, JSONLLogger) and "log" in card:  # not in checkpoints of the first version
                logger.complete(card["iteration"], card["log"])
