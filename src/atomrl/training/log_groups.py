"""The numbers of an iteration by where they come from, and what dashboards call them.

`metrics.jsonl` and everything that a configuration names have one flat line of names. TensorBoard and W&B show the
same names in groups, `reward/force_reward_mean`:

| group | what |
|---|---|
| `reward` | scores and what the reward says beside them, failures |
| `policy` | advantages, the update, the learning rate |
| `samples` | what the monitor measures whatever the reward is |
| `time` | seconds, whoever measured them |
| `val` | a validation's numbers, which are called so everywhere |
"""

from __future__ import annotations

from collections.abc import Mapping

from atomrl.config.outputs import VALIDATED
from atomrl.core.records import Stats

REWARD, POLICY, SAMPLES, TIME, VALIDATION = "reward", "policy", "samples", "time", "val"

SECONDS = "seconds_"
"""What the names of times begin with."""


def as_line(groups: Mapping[str, Stats]) -> Stats:
    """All numbers under the names of the log."""
    return {name: value for numbers in groups.values() for name, value in numbers.items()}


def tags(groups: Mapping[str, Stats]) -> Stats:
    """All numbers under the names that dashboards show: the group, a slash, the name of the log."""
    return {_tag(group, name): value for group, numbers in groups.items() for name, value in numbers.items()}


def _tag(group: str, name: str) -> str:
    """What one number is called."""
    if name.startswith(VALIDATED):
        return name
    return f"{TIME if name.startswith(SECONDS) else group}/{name}"
