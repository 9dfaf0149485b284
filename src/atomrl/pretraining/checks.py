"""What a pre-training refuses before anything is loaded: values out of range, words that nobody knows.

What else a network's configuration refuses, the network says itself, when it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from atomrl.config.checks import MOST_RATE, MOST_THREADS
from atomrl.training.experiment import choose_device
from atomrl.util.errors import UserError

if TYPE_CHECKING:
    from atomrl.pretraining.session import Session

AT_LEAST = {
    "threads": 1,
    "val_every": 1,
    "val_batches": 0,
    "log_every": 0,
    "quality_every": 0,
    "quality_samples": 1,
    "match_structures": 1,
    "card_structures": 1,
    "train.steps": 1,
    "train.decay_steps": 0,
    "train.batch_size": 1,
    "train.warmup": 0,
    "train.weight_decay": 0,
    "model.context_features": 0,
}
"""Lower ends by key. Every other whole number of `model` is at least 1, every factor of `weights` at least 0."""

AT_MOST = {"train.lr": MOST_RATE, "threads": MOST_THREADS}
"""Upper ends by key."""

POSITIVE = ("checkpoint_minutes", "train.lr", "train.max_grad_norm")

CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "precision": ("32-true", "bf16-mixed", "16-mixed"),
}

SEEDS = range(2**64)
"""What both NumPy and torch take."""


def check(session: Session) -> None:
    """Refuse options that cannot be.

    Raises:
        UserError: a number out of range, an unknown word, or a device that is not there.
    """
    for key, value in _leaves(asdict(session)):
        if key in POSITIVE and not value > 0:
            raise UserError(f"{key}={value}: must be positive")
        if key in AT_MOST and value is not None and value > AT_MOST[key]:
            raise UserError(f"{key}={value}: must be at most {AT_MOST[key]:g}")
        low = _least(key, value)
        if low is not None and not value >= low:
            raise UserError(f"{key}={value}: must be at least {low}")
        if key in CHOICES and value not in CHOICES[key]:
            raise UserError(f"{key}={value}: must be one of {', '.join(CHOICES[key])}")
    train = session.train
    if not 0 <= train.ema_decay <= 1:
        raise UserError(f"train.ema_decay={train.ema_decay}: must lie between 0 and 1")
    if train.seed not in SEEDS:
        raise UserError(f"train.seed={train.seed}: must lie between 0 and 2^64 - 1")
    if choose_device(session.device).type == "cpu" and session.precision == "16-mixed":
        raise UserError("precision=16-mixed needs a GPU: use bf16-mixed, or 32-true")


def _least(key: str, value: Any) -> float | None:
    """Lower end of an option's values; None: it has none, or the option is not set."""
    if value is None:
        return None
    whole = isinstance(value, int) and not isinstance(value, bool)
    of_a_group = 0 if key.startswith("weights.") else 1 if key.startswith("model.") and whole else None
    return AT_LEAST.get(key, of_a_group)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of nested mappings."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
