"""The interface of `RLModule` that the source document shows: load a run, roll out, score, calculate the loss."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import lightning
import torch
from torch import Tensor
from torch.nn import Parameter

from atomrl.advantages import Advantages
from atomrl.checkpoints.stored import read_torch
from atomrl.collective import current
from atomrl.config import TrainSection
from atomrl.config.checks import check_needs
from atomrl.errors import UserError
from atomrl.objectives.base import Objective
from atomrl.protocols import DiffusionPolicy, Monitor
from atomrl.records import Prompts, RewardTable, Structures, Trajectory
from atomrl.rollout import RolloutConfig, rollout
from atomrl.scoring import Scorer
from atomrl.training.run_directory import described_run, find_run
from atomrl.update import update, usable

if TYPE_CHECKING:
    from atomrl.training.rl_module import RLModule

log = logging.getLogger(__name__)


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


class DocumentedInterface(lightning.LightningModule):
    """What `RLModule` trains with, and what can be called without a trainer.

    One iteration by hand, without its optimizer step:

        batch_gen, trajectory = rl_module.rollout(rl_module.plan.prompts(0))
        rewards, advantages = rl_module.compute_rewards(batch_gen)
        loss = rl_module.calculate_loss(trajectory, advantages)

    The module must be on the device of the prompts.
    """

    policy: DiffusionPolicy
    scorer: Scorer
    objective: Objective
    sampling: RolloutConfig
    config: TrainSection
    monitor: Monitor | None

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
        return _load_run(Path(checkpoint_path), trust_code)

    def rollout(self, batch: Prompts) -> tuple[Generated, Trajectory]:
        """Sample every prompt; a `per_sample` reward scores the first samples while the next are drawn."""
        self.scorer.begin()
        trajectory = rollout(self.policy, batch, self.sampling, on_bucket=self.scorer.start)
        streamed = self.scorer.reward.scope == "per_sample"
        return Generated(trajectory, self.scorer.finish(trajectory, current()) if streamed else None), trajectory

    def compute_rewards(self, batch_gen: Generated) -> tuple[RewardTable, Advantages]:
        """Scores of a generated batch, and the advantages that the objective makes of them."""
        trajectory, table = batch_gen.trajectory, batch_gen.scores
        if table is None:
            table = self.scorer.finish(trajectory, current())
        active = usable(trajectory, self.config.exploded_above)
        return table, self.objective.advantages(table.to(self.device), trajectory.group_ids, active, current())

    def calculate_loss(self, trajectory: Trajectory, advantages: Advantages) -> Tensor:
        """The objective -J, mean over samples and trained transitions: a number, (), that can be differentiated once.

        It is what `update` takes its first step along, before the gradient is clipped, and comes from the same code:
        one transition and micro-batch at a time, so that a rollout's graph need not fit in memory.

        Raises:
            UserError: all samples exploded.
            NonFiniteLossError: it is not finite.
        """
        parameters = [p for p in self.policy.trainable().parameters() if p.requires_grad]
        whole = replace(
            self.config,
            epoch_per_rollout=1,
            gradient_accumulation_steps=None,
            max_grad_norm=inf,
            max_behaviour_kl=None,
        )
        earlier = [parameter.grad for parameter in parameters]
        kept = _KeptGradients(parameters)
        try:
            stats = update(self.policy, trajectory, advantages, self.objective, kept, whole, current())
        finally:
            for parameter, gradient in zip(parameters, earlier, strict=True):
                parameter.grad = gradient
        pairs = zip(parameters, kept.gradients, strict=True)
        along = torch.stack([(parameter * gradient).sum() for parameter, gradient in pairs]).sum()
        return stats["loss"] + (along - along.detach())  # the loss's value, and its gradient

    def close(self) -> None:
        """Give back workers and threads."""
        self.scorer.close()
        if self.monitor is not None:
            self.monitor.close()


class _KeptGradients:
    """Stands where `update` has an optimizer: keeps the gradients of its one step, and moves nothing."""

    def __init__(self, parameters: list[Parameter]) -> None:
        self.parameters = parameters
        self.gradients: list[Tensor] = []

    def zero_grad(self) -> None:
        """Start from nothing."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Keep them."""
        self.gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]


def _load_run(place: Path, trust_code: bool) -> RLModule:
    """The module that a run's config.yaml describes, built on its checkpoint instead of its base backbone."""
    from atomrl.experiment import build_module  # noqa: PLC0415 - imports RLModule

    checkpoint, described = find_run(place)
    config = described_run(described, trust_code, "trust_code=True")
    config = replace(config, model=replace(config.model, backbone=str(checkpoint)))
    check_needs(config)
    module, _ = build_module(config)
    try:
        module.load_state_dict(read_torch(checkpoint)["state_dict"])
    except RuntimeError as error:
        module.close()
        raise UserError(f"{checkpoint} does not belong to the run that {described} describes") from error
    return module
