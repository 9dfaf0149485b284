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
    """Whether to log to Weights & Biases (needs `pip install 'atomrl[wandb]'`); a run that is continued continues the
    same run there."""
    project: str = "atomrl"
    """Name of the project at Weights & Biases."""
    name: str | None = None
    """Name of the run at Weights & Biases; null: W&B makes one."""


class LogSection(Options):
    """What is printed while a training runs, and where metrics go beside metrics.jsonl."""

    line_every: Annotated[CountOrNone, Unit("iterations")] = 10
    """Iterations between printed lines, where no terminal shows a progress bar; 0: none."""
    samples_every: Annotated[CountOrNone, Unit("iterations")] = 10
    """Iterations between two looks at the samples in TensorBoard and W&B, with histograms, a picture of eight and a
    table; the first iteration is among them; 0: none."""

    tensorboard: bool = True
    """Whether to write TensorBoard events into `tensorboard/`."""
    csv: bool = False
    """Whether to write the numbers of metrics.jsonl into `csv/metrics.csv` too."""


class ValidationSection(Options):
    """Rollouts between iterations that nothing is trained on, of the same prompts and noise each time."""

    every: Annotated[CountOrNone, Unit("iterations")] = 0
    """Iterations between validations, rollouts that nothing is trained on; 0: none."""
    groups: Count | None = None
    """Groups (prompts) of a validation, of dataloader.each_prompt_sample samples each; null:
    dataloader.sample_group_size."""
    time_step: Count | None = None
    """T, the transitions of a validation's walk; null: model.time_step."""
    seed: Seed = 1_000_003
    """Seed of a validation's prompts and noise; no training and no evaluation has the same ones, whatever their seeds
    are."""


class EvaluationSection(Options):
    """The before/after table that a run ends with."""

    samples: CountOrNone = 0
    """Fresh samples on each side, base and trained, of the table at the end; 0: no table."""
    time_step: Count | None = None
    """T, the transitions of the evaluation's walk; null: model.time_step."""
    seed: Seed = 1_000_003
    """Seed of the evaluation's prompts and noise, the same for both sides."""
