"""The Lightning shell around `iteration.iterate`, and the documented way to call its parts by hand.

One Lightning epoch is one iteration with one batch of prompts, so Lightning's own epoch checkpoints resume exactly.
The algorithm is in `iteration`, which imports no Lightning.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from atomrl.checkpoints.folder import require_fitting
from atomrl.checkpoints.torch_file import read_torch
from atomrl.config import Config
from atomrl.core.advantages import Advantages
from atomrl.core.averaging import move_average, with_weights_of
from atomrl.core.collective import current
from atomrl.core.iteration import Iteration, compare, iterate, sample_and_score
from atomrl.core.protocols import Collective, DiffusionPolicy, Model, Remembering
from atomrl.core.records import Prompts, RewardTable, Stats, Structures, Trajectory
from atomrl.core.schedules import adopt, lr_factor
from atomrl.core.scoring import Scorer
from atomrl.core.update import Lesson, accumulate, reduce_and_clip, trainable_parameters
from atomrl.core.update_log import UpdateLog
from atomrl.data.batches import Listed
from atomrl.policies.own import asked_policy
from atomrl.training.drawn import Drawn, drawn_by_all
from atomrl.training.experiment import build_parts
from atomrl.training.jsonl import JSONLLogger
from atomrl.training.log_groups import POLICY, REWARD, SAMPLES, SECONDS, TIME, VALIDATION, as_line
from atomrl.training.own_objective import asked
from atomrl.training.parts import Parts
from atomrl.training.requirements import check_code, check_needs
from atomrl.training.run_directory import described_run, find_run
from atomrl.training.same_weights import require_same_weights
from atomrl.training.score_log import count_potentials, require_scores, summarise
from atomrl.training.validation import FirstMemory
from atomrl.user_code.calling import during
from atomrl.util.closeable import Closing
from atomrl.util.errors import ExplodedError, UserError, hinted
from atomrl.workers.executor import Workers

log = logging.getLogger(__name__)

CURRENT, REFERENCE, OLD = "policy.current.", "policy.initial.", "policy.followed."
"""Prefixes of the tensors of a policy's models, see `policies.reference`."""

MEMORY = "reward_memory"
"""Entry of a checkpoint: what the reward remembers of the run."""

MANY_MASKED = 0.5
"""A run that leaves out more than this share of an iteration's samples says so."""

AGAINST_EXPLOSIONS = (
    "lower train.learning_rate, raise model.time_step or the weight of the objective's distance to the initial model"
)
UNTRAINED = (
    "nothing is trained yet, so the model itself does this: raise model.time_step, or give a conditional model a "
    "lower model.guidance_scale or a dataloader.context nearer to its training set"
)


@dataclass(frozen=True)
class Generated:
    """The generated batch of a rollout: B samples, in the order of its trajectory.

    Attributes:
        trajectory: how they came about.
        scores: of a `per_sample` reward, which scores while the next samples are drawn; None: not scored yet.
    """

    trajectory: Trajectory
    scores: RewardTable | None

    @property
    def structures(self) -> Structures:
        """The samples, padded to the largest."""
        return self.trajectory.structures

    @property
    def prompts(self) -> Prompts:
        """Their sizes, groups and ids."""
        return self.trajectory.prompts


class RLModule(lightning.LightningModule):
    """Trains a policy by reinforcement learning.

    One iteration by hand, without its optimizer step and without a trainer; the module must be on the device of the
    prompts:

        batch_gen, trajectory = rl_module.rollout(rl_module.plan.prompts(0))
        rewards, advantages = rl_module.compute_rewards(batch_gen)
        loss = rl_module.calculate_loss(trajectory, advantages)

    Args:
        parts: of the training.

    Attributes:
        line: of the log, for the last iteration.
        groups: the same numbers by where they come from, see `log_groups`; of rank 0 its own.
        drawn: the samples of the last iteration, of all ranks; None before there was one.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.automatic_optimization = False
        policy = parts.policy
        assert isinstance(policy, nn.Module), "the policy must be a torch module: its weights are saved with the run"
        self.policy, self.plan, self.objective = policy, parts.plan, parts.objective
        self.asked = asked(parts.objective)
        self.scorer = Scorer(parts.reward, parts.places_at_once, parts.forces_at)
        self.stages, self.iteration, self.config = parts.stages, parts.iteration, parts.optimization
        self.total_steps, self.monitor, self.card = parts.total_steps, parts.monitor, dict(parts.card)
        self.validation, self._first_memory = parts.validation, FirstMemory(parts.reward)
        self._collective, self._warned = parts.collective, False
        self.line: Stats = {}
        self.groups: Mapping[str, Stats] = {}
        self.drawn: Drawn | None = None
        if self.asked.needs_reference:
            self.asked_policy.keep_reference()
        if self.asked.old_decay(0) is not None:
            self.asked_policy.follow(0.0)
        average = partial(move_average, self.config.ema_decay)
        self.averaged = AveragedModel(self.asked_policy.trainable(), multi_avg_fn=average)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # Lightning's other options are for modules with hparams
        cls, checkpoint_path: str | Path, *, weights_only: bool | None = None, trust_code: bool = False
    ) -> RLModule:
        """The module of a run, with the weights of one of its checkpoints, on the CPU.

        The run's base backbone is not needed, what its reward compares with is. `close()` gives back its workers.

        Args:
            checkpoint_path: checkpoint_latest.pth or checkpoint_best.pth, next to the run's config.yaml; or the run
                directory, for the latest.
            weights_only: accepted as documented. False changes nothing: loading never runs code from a file.
            trust_code: run code that the run's config.yaml names: a reward component that is not the package's.

        Raises:
            UserError: no run there, a file that is not a run's checkpoint or holds objects, what the reward compares
                with is missing, or the configuration names such code and it is not trusted.
        """
        if weights_only is False:
            log.warning(
                "%s: weights_only=False is accepted, but loading stays safe: tensors and plain values only, never code",
                checkpoint_path,
            )
        checkpoint, described = find_run(Path(checkpoint_path))
        config = described_run(described, trust_code, "trust_code=True")
        config = config.changed(model=config.model.changed(backbone=str(checkpoint)))
        check_needs(config)
        check_code(config)
        module, _ = build_module(config)
        try:
            content = read_torch(checkpoint)
            module.load_state_dict(content["state_dict"])
        except RuntimeError as error:
            module.close()
            raise UserError(f"{checkpoint} does not belong to the run that {described} describes") from error
        module._recall(content)
        return module

    @property
    def asked_policy(self) -> DiffusionPolicy:
        """The policy as it is asked; not kept, since torch would save one of the package's as a second module."""
        return asked_policy(self.policy)

    @property
    def collective(self) -> Collective:
        """The processes that train together."""
        return self._collective or current()

    def rollout(self, batch: Prompts) -> tuple[Generated, Trajectory]:
        """Sample every prompt; a `per_sample` reward scores the first samples while the next are drawn."""
        trajectory = sample_and_score(self.asked_policy, batch, self.scorer, self.asked, self.iteration.rollout)
        streamed = self.scorer.reward.scope == "per_sample"
        return Generated(trajectory, self.scorer.finish(trajectory, self.collective) if streamed else None), trajectory

    def compute_rewards(self, batch_gen: Generated) -> tuple[RewardTable, Advantages]:
        """Scores of a generated batch after all stages, and the advantages that the objective makes of them."""
        trajectory, scores = batch_gen.trajectory, batch_gen.scores
        if scores is None:
            scores = self.scorer.finish(trajectory, self.collective)
        return compare(trajectory, scores, self.stages, self.asked, self.iteration.update, self.collective)

    def calculate_loss(self, trajectory: Trajectory, advantages: Advantages) -> Tensor:
        """The objective -J, mean over samples and terms: a number, (), that can be differentiated once.

        It is what an iteration takes its first step along, before the gradient is clipped, and comes from the same
        code: one term and micro-batch at a time, so that a rollout's graph need not fit in memory.

        Raises:
            ExplodedError: all samples exploded.
            NonFiniteLossError: it is not finite.
        """
        parameters, numbers = trainable_parameters(self.asked_policy), UpdateLog()
        earlier = [parameter.grad for parameter in parameters]
        try:
            for parameter in parameters:
                parameter.grad = None
            lesson = Lesson.of(trajectory, advantages, self.iteration.update, self.collective)
            accumulate(self.asked_policy, lesson, self.asked.terms(trajectory, 0), self.asked, numbers)
            reduce_and_clip(parameters, inf, self.collective)
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        finally:
            for parameter, gradient in zip(parameters, earlier, strict=True):
                parameter.grad = gradient
        pairs = zip(parameters, gradients, strict=True)
        along = torch.stack([(parameter * gradient).sum() for parameter, gradient in pairs]).sum()
        return numbers.means(self.collective)["loss"] + (along - along.detach())  # the loss's value, and its gradient

    def close(self) -> None:
        """Give back workers and threads."""
        self.scorer.close()
        for stage in self.stages:
            if isinstance(stage, Closing):
                stage.close()
        if self.monitor is not None:
            self.monitor.close()

    def train_dataloader(self) -> DataLoader[Prompts]:
        """The prompts of the current iteration, as the only batch (Lightning)."""
        prompts = self.plan.prompts(self.trainer.current_epoch)
        share = self.plan.share(prompts, self.collective.rank, self.collective.size)
        return DataLoader(Listed([share]), batch_size=None)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW over the trained module, with its schedule (Lightning)."""
        scheduler = self._optimization()
        return {"optimizer": scheduler.optimizer, "lr_scheduler": {"scheduler": scheduler}}

    def _optimization(self) -> LambdaLR:
        """The schedule, and in it the optimizer, as at the start of a run."""
        config = self.config
        parameters = [p for p in self.asked_policy.trainable().parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters,
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            eps=config.epsilon,
            weight_decay=config.weight_decay,
        )
        factor = partial(
            lr_factor,
            kind=config.scheduler,
            warmup=config.warmup_steps,
            total=self.total_steps,
            min_ratio=config.min_lr_ratio,
            decay_fraction=config.decay_fraction,
            decay_shape=config.decay_shape,
        )
        return LambdaLR(optimizer, factor)

    def on_train_start(self) -> None:
        """Go on with this run's rate, betas, decay and schedule, not those of the checkpoint (Lightning).

        Raises:
            UserError: the processes of the run do not begin with the same weights.
        """
        require_same_weights(self, self.collective)
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, LambdaLR)
        adopt(scheduler, self._optimization())

    def training_step(self, batch: Prompts, batch_idx: int) -> None:
        """One iteration (Lightning)."""
        with during(f" in iteration {batch.iteration}"):
            self._iteration(batch)

    def _iteration(self, batch: Prompts) -> None:
        """Sample, score, update; the numbers for the log.

        Raises:
            UserError: all samples exploded, or the first iteration has no score for any.
        """
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        assert isinstance(optimizer, LightningOptimizer)  # it passes everything on, and counts the steps
        assert isinstance(schedule, LRScheduler)
        try:
            done = iterate(
                self.asked_policy,
                batch,
                self.scorer,
                self.stages,
                self.asked,
                optimizer,
                self.iteration,
                self.collective,
            )
        except ExplodedError as error:  # the first iteration has stepped nowhere yet
            advice = f"{AGAINST_EXPLOSIONS}, and start again from earlier weights" if batch.iteration else UNTRAINED
            raise UserError(f"{error}; {advice}") from error
        self._warn_of_explosions(done.stats["masked_samples"], batch.iteration)
        self.averaged.update_parameters(self.asked_policy.trainable())
        rate = float(schedule.optimizer.param_groups[0]["lr"])  # what this iteration stepped with
        schedule.step()
        self.drawn = drawn_by_all(done, self.collective)
        self.groups = self._measured(done, self.drawn, {"lr": rate}) | {VALIDATION: self._validated(batch)}
        if isinstance(self.scorer.reward, Remembering):
            self.scorer.reward.remember(self.drawn.structures)
        self.line = self.collective.of_first(as_line(self.groups))
        self.log_dict(self.line, on_step=False, on_epoch=True, batch_size=len(batch))

    def _measured(self, done: Iteration, everyone: Drawn, further: Stats) -> dict[str, Stats]:
        """An iteration's numbers, over the samples of all ranks; the times are this one's, the monitor rank 0's."""
        collective = self.collective
        potentials = {name: float(collective.sum(n)) for name, n in count_potentials(done.table).items()}
        require_scores(everyone.table, everyone.prompts.iteration)
        measured = {} if self.monitor is None or collective.rank else self.monitor.measure(everyone.structures)
        return {
            REWARD: {**summarise(replace(everyone.table, seconds=done.table.seconds)), **potentials},
            POLICY: {**done.advantages.stats, **done.stats, **further},
            SAMPLES: measured,
            TIME: {f"{SECONDS}{part}": seconds for part, seconds in done.seconds.items()},
        }

    def _validated(self, batch: Prompts) -> Stats:
        """The numbers of the validation that follows an iteration, by the averaged weights, if one does."""
        if self.validation is None or not self.validation.follows(batch.iteration):
            return {}
        started = time.monotonic()
        with with_weights_of(self.averaged.module, self.asked_policy.trainable()), self._first_memory.recalled():
            numbers = self.validation.numbers(self.asked_policy, self.scorer, self.collective, batch.sizes.device)
        return {**numbers, "seconds_validation": time.monotonic() - started}

    def _warn_of_explosions(self, masked: float, iteration: int) -> None:
        """Say once that the run learns from a minority of its samples."""
        samples = self.plan.groups * self.plan.samples_per_group
        if self._warned or masked <= MANY_MASKED * samples or self.collective.rank:
            return
        self._warned = True
        log.warning(
            f"iteration {iteration}: {masked:.0f} of {samples} samples ({100 * masked / samples:.0f} %) exploded and "
            f"were left out; if this continues, {AGAINST_EXPLOSIONS}"
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what the weights are, so that they can be loaded without the run (Lightning)."""
        run = {"iteration": self.trainer.current_epoch, "train": self.config.model_dump(), "log": dict(self.line)}
        checkpoint["atomrl"] = {**self.card, **run}
        if isinstance(self.scorer.reward, Remembering):
            checkpoint[MEMORY] = self.scorer.reward.memory()

    def _recall(self, checkpoint: Mapping[str, Any]) -> None:
        """Let the reward remember what the run drew before a checkpoint."""
        if isinstance(self.scorer.reward, Remembering):
            self.scorer.reward.recall(checkpoint.get(MEMORY, {}))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Log the checkpoint's iteration, should a kill have come before its line; fit the copies (Lightning).

        A copy is kept only where the objective reads it, and a resumed run may have another: a reference that was not
        kept is as this run begins with it, an old policy is the current one; what is no longer needed is dropped.

        Raises:
            UserError: it is of another model.
        """
        own, stored = self.state_dict(), checkpoint["state_dict"]
        for name in {*own, *stored}:
            if name.startswith((REFERENCE, OLD)) and (name in own) != (name in stored):
                stored.pop(name, None)
                current = stored.get(name.replace(OLD, CURRENT)) if name.startswith(OLD) else own.get(name)
                stored.update({name: current} if name in own else {})
        with hinted("; model.backbone is not what the run began with: put that back, or begin another run"):
            require_fitting(own, stored, "the checkpoint of the run")
        self._recall(checkpoint)
        card = checkpoint["atomrl"]
        for logger in self.trainer.loggers:
            if isinstance(logger, JSONLLogger) and "log" in card:  # not in checkpoints of the first version
                logger.complete(card["iteration"], card["log"])


def build_module(
    config: Config, workers: Workers | None = None, collective: Collective | None = None
) -> tuple[RLModule, Model]:
    """The module of a run, and the backbone it starts from; see `build_parts`.

    Raises:
        UserError: the backbone cannot be loaded, or what the reward needs is not there.
    """
    parts, model = build_parts(config, workers, collective)
    return RLModule(parts), model
