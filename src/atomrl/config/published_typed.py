"""Published keys that change nothing here, when they are typed: a file has them for Lightning, who types one means it.

docs/published-crystals.md has the table.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from atomrl.config.naming import key_of
from atomrl.util.errors import UserError

log = logging.getLogger(__name__)

STOPPING, SAVING = "callbacks.early_stopping", "callbacks.model_checkpoint"

INSTEAD: Mapping[str, str] = {
    STOPPING: "give `early_stop_metric`, `early_stop_mode`, `early_stop_patience` and `early_stop_delta`",
    f"{STOPPING}.monitor": "give `early_stop_metric`",
    f"{STOPPING}.mode": "give `early_stop_mode`",
    f"{STOPPING}.patience": "give `early_stop_patience`",
    f"{STOPPING}.min_delta": "give `early_stop_delta`",
    SAVING: "give `best_checkpoint_metric`, `best_checkpoint_mode` and `save_every`",
    f"{SAVING}.monitor": "give `best_checkpoint_metric`",
    f"{SAVING}.mode": "give `best_checkpoint_mode`",
    f"{SAVING}.every_n_epochs": "give `save_every`, iterations",
    f"{SAVING}.every_n_train_steps": "give `save_every`, iterations",
    f"{SAVING}.dirpath": "give `save_path`",
    "logger.wandb": "give `wandb.enabled`, `wandb.project` and `wandb.name`",
    "logger.wandb.offline": "set `WANDB_MODE=offline` in the environment",
    "logger.tensorboard": "give `log.tensorboard`",
    "logger.csv": "give `log.csv`",
    "trainer.max_epochs": "give `dataloader.epoches`, iterations",
    "trainer.strategy": "start several processes by torchrun (docs/several-processes.md)",
    "trainer.check_val_every_n_epoch": "give `validation.every`, iterations",
    "trainer.val_check_interval": "give `validation.every`, iterations",
    "trainer.default_root_dir": "give `save_path`",
    "paths.output_dir": "give `save_path`",
    "paths.log_dir": "give `save_path`",
    "hydra.run.dir": "give `save_path`",
    "paths.data_dir": "give `reward.reference_dataset`, the folder of the set",
}
"""{published key: what does here what the key does there}."""

NOTHING = frozenset({"", "none", "null", "-1", "false", "auto", "{}", "[]"})
"""Values that ask for nothing: no limit, none of it, or Lightning's own choice. A deleted key has none."""

SECTIONS = frozenset(key.partition(".")[0] for key in INSTEAD)
"""Of these keys."""

DEFAULTS: Mapping[str, str] = {"trainer.check_val_every_n_epoch": "1", "trainer.val_check_interval": "1.0"}
"""{published key: Lightning's own value}, which asks for nothing either; an interval of 1 would be each batch."""


def require_meant(override: str) -> None:
    """Raise UserError for a typed key that changes nothing here, but that another key stands for.

    A section may name what is chosen of it: `logger=wandb`, `logger=[wandb,csv]`.
    """
    key = key_of(override)
    if key.partition(".")[0] not in SECTIONS:
        return
    value = _value(override.partition("=")[2])
    chosen = value if isinstance(value, list) else [value]
    for name in (key, *(f"{key}.{one}" for one in chosen)):
        if name in INSTEAD and not _asks_nothing(name, value):
            raise UserError(f"{override}: this published key changes nothing here; {INSTEAD[name]}")


def _value(text: str) -> Any:
    """What a typed text says; the text itself if it is no YAML."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, AttributeError):  # a day that no month has, a tag of another kind
        return text


def _asks_nothing(key: str, value: Any) -> bool:
    said = str(value).lower()
    return said in NOTHING or said == DEFAULTS.get(key)


def warn_of_typed(overrides: Sequence[str], remedies: Mapping[str, str]) -> None:
    """Name each typed key that changes nothing here, all in one warning, with the remedies of those that have one."""
    if overrides:
        remedy = {override: remedies.get(key_of(override)) for override in overrides}
        named = (f"{override} ({said})" if said else override for override, said in remedy.items())
        log.warning(
            f"keys on the command line that change nothing here: {', '.join(named)}; see docs/published-crystals.md"
        )
