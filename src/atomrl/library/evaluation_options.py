"""What an evaluation reads of a configuration, and what the user may override."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from atomrl.config import Config, require_meant, with_overrides
from atomrl.config.naming import key_of
from atomrl.config.switches import refuse_of_training
from atomrl.evaluation.evaluate import TABLES
from atomrl.util.errors import UserError

SAID_BY_OPTIONS = {
    "model.backbone": "give --base",
    "model.time_step": "give --time-step",
    "evaluation.time_step": "give --time-step",
    "evaluation.samples": "give --num-samples",
    "evaluation.seed": "give --seed",
    "dataloader.context": "give --context",
    "seed": "give --seed",
    "device": "give --device",
}
"""Keys of a run that `atomrl evaluate` has an option for."""

BESIDE = ("dataloader.smiles_path", "threads")
"""Keys outside of the sections that it reads: what novelty of molecules is counted against, and torch's threads."""

OF_REWARD = ("reward.force_field", "reward.type")
"""Keys of a reward that judge no file, unless components of the reward get rows of their own."""


def overridden(config: Config, overrides: Sequence[str], sampled: bool = True) -> Config:
    """How to sample and judge, other than the configuration says. Threads are what is typed, not what a run had.

    Args:
        config: of the run, or the documented defaults.
        overrides: `key=value` each.
        sampled: whether a model is sampled; otherwise nothing reads the section model.

    Raises:
        UserError: as `with_overrides`, or a key that an evaluation does not read, or not as it stands.
    """
    sections = ("reward.", "evaluation.", *(("model.",) if sampled else ()))
    typed = {key_of(override) for override in overrides}
    for override in overrides:
        key = key_of(override)
        if key == "evaluation.regressor" and not sampled:
            raise UserError(
                f"{override}: it compares samples with what a model was asked for, and files were asked for nothing: "
                "leave it out"
            )
        if key in OF_REWARD and not sampled and "reward.components" not in typed:
            raise UserError(
                f"{override}: files are judged by the evaluation's own force field, whatever {key} says; for a table "
                "by another one set evaluation.second_judge"
            )
        if (key.startswith(sections) or key in BESIDE) and key not in SAID_BY_OPTIONS:
            refuse_of_training([override], "an evaluation")
            continue
        keys = f"it reads {', '.join([*(f'{section}*' for section in sections), BESIDE[0]])} and {BESIDE[1]}"
        told = SAID_BY_OPTIONS.get(key, keys) if sampled else keys
        raise UserError(f"{override}: an evaluation {'' if sampled else 'of files '}takes no {key}; {told}")
    changed = with_overrides(config.changed(threads=None), overrides)
    require_meant(changed, overrides)
    return changed


def require_new_table(output: Path, known: int) -> None:
    """Refuse what no evaluation can be written for, before anything is loaded.

    Args:
        output: folder for the tables.
        known: samples of the known set.

    Raises:
        UserError: the folder holds an evaluation, or the number is below 0.
    """
    if known < 0:
        raise UserError(f"--known {known}: must be at least 1; 0 or nothing for no such column")
    if (output / TABLES).exists():
        raise UserError(f"--output {output} holds an evaluation: give another folder, or remove this one")
