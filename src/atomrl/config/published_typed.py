"""Published keys that change nothing here, when they are typed: a file has them for Lightning, who types one means it.

docs/published-crystals.md has the table.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

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
    "paths.data_dir": "give `reward.reference_dataset`, the folder of the set",
}
"""{published key: what does here what the key does there}."""

NOTHING = frozenset({"", "null", "-1", "false", "auto", "{}"})
"""Values that ask for nothing: no limit, none of it, or Lightning's own choice. A deleted key has none."""


def require_meant(override: str) -> None:
    """Raise UserError for a typed key that changes nothing here, but that another key stands for."""
    key, value = key_of(override), override.partition("=")[2]
    if key in INSTEAD and value.lower() not in NOTHING:
        raise UserError(f"{override}: this published key changes nothing here; {INSTEAD[key]}")


def warn_of_typed(overrides: Sequence[str]) -> None:
    """Name each typed key that changes nothing here, all in one warning."""
    if overrides:
        log.warning(f"what was typed changes nothing here: {', '.join(overrides)}; see docs/published-crystals.md")
