"""Sections of a run's configuration about what it writes: logs, and the table at the end."""

from __future__ import annotations

from atomrl.util.options import Count, CountOrNone, Options, Seed


class WandbSection(Options):
    """Weights & Biases."""

    enabled: bool = False
    """Log there (needs `pip install 'atomrl[wandb]'`)."""
    project: str = "atomrl"
    """Name of the project."""
    name: str | None = None
    """Name of the run there; null: W&B makes one."""


class LogSection(Options):
    """Where metrics go beside metrics.jsonl."""

    tensorboard: bool = True
    """Write TensorBoard events."""
    csv: bool = False
    """Write metrics.csv."""


class EvaluationSection(Options):
    """The before/after table that a run ends with."""

    samples: CountOrNone = 0
    """Fresh samples per side; 0: no evaluation."""
    time_step: Count | None = None
    """T of the evaluation's walk; null takes model.time_step."""
    seed: Seed = 1_000_003
    """Of the evaluation's prompts and noise, the same for both sides."""
