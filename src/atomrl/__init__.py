"""Reinforcement-learning post-training for atomistic diffusion models.

What stands in `__all__` is imported when it is asked for: `import atomrl` alone is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atomrl.config import load_config
    from atomrl.library.evaluating import evaluate
    from atomrl.library.judge_structures import evaluate_structures
    from atomrl.library.loading import load
    from atomrl.library.resuming import resume
    from atomrl.library.run import Run
    from atomrl.library.sampling import sample
    from atomrl.library.training import train
    from atomrl.util.errors import UserError

__all__ = ["Run", "UserError", "evaluate", "evaluate_structures", "load", "load_config", "resume", "sample", "train"]

_HOMES = {
    "Run": "atomrl.library.run",
    "UserError": "atomrl.util.errors",
    "evaluate": "atomrl.library.evaluating",
    "evaluate_structures": "atomrl.library.judge_structures",
    "load": "atomrl.library.loading",
    "load_config": "atomrl.config",
    "resume": "atomrl.library.resuming",
    "sample": "atomrl.library.sampling",
    "train": "atomrl.library.training",
}
"""Where each of these is."""


def __getattr__(name: str) -> Any:
    """Import it now."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """What there is, for editors."""
    return sorted({*globals(), *__all__})
