"""Sections of a run's configuration about what it measures and writes: validations, logs, the table at the end."""

from __future__ import annotations

from typing import Annotated

from atomrl.util.option_words import Unit
from atomrl.util.options import Count, CountOrNone, Options, Seed

VALIDATED = "val/"
"""What the names of a validation's numbers begin with."""


class WandbSection(Options):
    """Weights & Biases."""

    enabled: bool = False
    """Log there (needs `pip install 'atomrl[wandb]'`); a run that is continued goes on as the same run there."""
    project: str = "atomrl"
    """Name of the project."""
    name: str | None = None
    """Name of the run there; null: W&B makes one."""


class LogSection(Options):
    """What is printed while a training runs, and where metrics go beside metrics.jsonl."""

    line_every: Annotated[CountOrNone, Unit("iterations")] = 10
    """Iterations from one printed line to the next where no terminal shows a progress bar; 0: none."""
    samples_every: Annotated[CountOrNone, Unit("iterations")] = 10
    """Iterations from one look at the samples to the next, the first iteration's among them: histograms, a picture of
    eight and a table, in TensorBoard and W&B; 0: none."""

    tensorboard: bool = True
    """Write TensorBoard events."""
    csv: bool = False
    """Write metrics.csv."""


class ValidationSection(Options):
    """Rollouts between iterations that nothing is trained on, of the same prompts and noise each time."""

    every: Annotated[CountOrNone, Unit("iterations")] = 0
    """Iterations from one validation to the next; 0: none."""
    groups: Count | None = None
    """Its prompts (groups), of dataloader.each_prompt_sample samples each; null takes dataloader.sample_group_size."""
    time_step: Count | None = None
    """T of its walk; null takes model.time_step."""
    seed: Seed = 1_000_003
    """Of its prompts and noise, which are no training's and no evaluation's, whatever their seeds are."""


class EvaluationSection(Options):
    """The before/after table that a run ends with."""

    samples: CountOrNone = 0
    """Fresh samples per side; 0: no evaluation."""
    time_step: Count | None = None
    """T of the evaluation's walk; null takes model.time_step."""
    seed: Seed = 1_000_003
    """Of the evaluation's prompts and noise, the same for both sides."""
