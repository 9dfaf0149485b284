"""What `atomrl check-reward` says about a reward: shapes, gaps, spread inside groups, time per sample."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from atomrl.core.advantages import Groups
from atomrl.core.protocols import Reward
from atomrl.core.records import Prompts, RewardTable, Structures
from atomrl.core.table_check import misshapen
from atomrl.rewards.build import build_components
from atomrl.rewards.components import RewardComponent
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.structures.listing import MOLECULES
from atomrl.testing import check_reward
from atomrl.user_code.arguments import require_arguments
from atomrl.user_code.calling import calling
from atomrl.user_code.load import load_object
from atomrl.user_code.trust import here
from atomrl.util.errors import UserError, hinted

ROCK_SALT = (
    ((0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)),
    ((0.5, 0.5, 0.5), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)),
)
CAESIUM_CHLORIDE = (((0, 0, 0),), ((0.5, 0.5, 0.5),))
PEROVSKITE = (((0, 0, 0),), ((0.5, 0.5, 0.5),), ((0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)))

EXAMPLES = (
    ((11, 17), ROCK_SALT, 5.64),
    ((12, 8), ROCK_SALT, 4.21),
    ((55, 17), CAESIUM_CHLORIDE, 4.12),
    ((38, 22, 8), PEROVSKITE, 3.905),
)
"""NaCl, MgO, CsCl, SrTiO3: atomic numbers, sites of each element, measured lattice constant in Å."""


@dataclass(frozen=True)
class ChannelReport:
    """One channel of a reward.

    Attributes:
        shape: of its values; (B,) is right.
        finite: how many values are finite.
        low: the smallest finite value; NaN if there is none.
        high: the largest.
        spread: mean over groups of the population standard deviation of their finite values.
        flat_groups: groups of several samples whose finite values are all equal: nothing can be learned from them.
    """

    shape: tuple[int, ...]
    finite: int
    low: float
    high: float
    spread: float
    flat_groups: int


@dataclass(frozen=True)
class RewardReport:
    """What a reward did with a batch.

    Attributes:
        samples: B.
        groups: number of groups.
        scope: `per_sample` or `per_batch`.
        channels: by name.
        reasons: {reason: samples} of what failed.
        seconds_per_sample: of the last call, when workers are warm.
        broken_promise: what `atomrl.testing.check_reward` objects to; None if nothing.
    """

    samples: int
    groups: int
    scope: str
    channels: Mapping[str, ChannelReport]
    reasons: Mapping[str, int]
    seconds_per_sample: float
    broken_promise: str | None

    @property
    def problems(self) -> tuple[str, ...]:
        """What must be mended before this reward can teach."""
        found = [] if self.broken_promise is None else [self.broken_promise]
        for name, channel in self.channels.items():
            if not channel.finite:
                found.append(f"channel {name}: no sample has a finite value")
            elif channel.flat_groups == self.groups:
                found.append(f"channel {name}: the same value for all samples of every group, so nothing is learned")
        return tuple(found)

    def lines(self) -> list[str]:
        """The report as text."""
        rows = [f"{self.samples} samples in {self.groups} groups, scope {self.scope}"]
        for name, channel in self.channels.items():
            rows.append(
                f"channel {name}: shape {channel.shape}, {channel.finite} of {self.samples} finite, "
                f"{channel.low:.4g} to {channel.high:.4g}, spread within a group {channel.spread:.4g}, "
                f"{channel.flat_groups} groups without spread"
            )
        rows += [f"failed: {reason} ({count} samples)" for reason, count in sorted(self.reasons.items())]
        rows.append(f"time per sample: {1000 * self.seconds_per_sample:.2f} ms")
        return [*rows, *(f"PROBLEM: {problem}" for problem in self.problems)] + ([] if self.problems else ["ok"])


def load_reward(source: str, molecules: bool = False) -> Reward:
    """A reward of the user's.

    Args:
        molecules: it scores molecules, as `ase.Atoms`; else crystals.
        source: `path/to/file.py:name` or a dotted path, of a `RewardComponent`, a function f(structures) -> array, or
            a class that implements `protocols.Reward` and needs no arguments.

    Raises:
        UserError: no such file or name, it is none of these, or it cannot be made as a training would make it.
    """
    found = load_object(here(source))
    if isinstance(found, type) and not issubclass(found, RewardComponent) and hasattr(found, "score"):
        if missing := [part for part in ("scope", "close") if not hasattr(found, part)]:
            raise UserError(f"{source} has no {' and no '.join(missing)}, which a class with score needs too")
        with hinted(" (it is made without arguments here: else check it from Python)"):
            require_arguments(found, {}, source)
        with calling(f"{source}()", found):
            return cast("Reward", found())
    components = build_components([{"_target_": source}])
    reward = ReinforceReward(components, listing=MOLECULES if molecules else None, totals=not molecules)
    if molecules and not reward.compares:
        reward.scope = "per_sample"  # as in a training
    return reward


def report(reward: Reward, structures: Structures, prompts: Prompts) -> RewardReport:
    """Score a batch and say what came of it.

    Args:
        reward: of any kind.
        structures: B samples, e.g. `example_crystals()`.
        prompts: theirs.

    Raises:
        UserError: as `reward.score`; it raises an exception, ends the program, or gives no table of these samples.
    """
    broken = None
    with calling(f"the reward {type(reward).__name__}", reward, f"called on {len(structures)} samples"):
        try:
            check_reward(reward, structures, prompts)
        except AssertionError as error:
            broken = str(error)
        started = time.perf_counter()
        table = reward.score(structures, prompts)
        seconds = (time.perf_counter() - started) / max(1, len(structures))
        if wrong := misshapen(table, structures):
            raise UserError(f"{type(reward).__name__}: {wrong}")
    return RewardReport(
        samples=len(structures),
        groups=Groups.of(prompts.group_ids).count,
        scope=reward.scope,
        channels={name: _channel(values, table, prompts.group_ids) for name, values in table.channels.items()},
        reasons=Counter(reason for reason in table.reasons if reason is not None),
        seconds_per_sample=seconds,
        broken_promise=broken,
    )


def example_crystals(per_group: int = 4, seed: int = 0) -> tuple[Structures, Prompts]:
    """Four groups of slightly different crystals: NaCl, MgO, CsCl, SrTiO3, strained by 3 %, atoms moved by 0.05 Å.

    Args:
        per_group: samples of each.
        seed: of strains and displacements.
    """
    draw = torch.Generator().manual_seed(seed)
    parts = []
    for elements, sites, length in EXAMPLES:
        numbers = torch.tensor([number for number, places in zip(elements, sites, strict=True) for _ in places])
        frac_coords = torch.tensor([place for places in sites for place in places], dtype=torch.float64)
        strain = 0.03 * torch.randn(per_group, 3, generator=draw, dtype=torch.float64)
        cell = torch.diag_embed(length * (1 + strain))
        moved = 0.05 * torch.randn(per_group, len(numbers), 3, generator=draw, dtype=torch.float64)
        positions = frac_coords @ cell + moved
        mask = torch.ones(per_group, len(numbers), dtype=torch.bool)
        parts.append(Structures(numbers.expand(per_group, -1), positions, mask, cell))
    structures = Structures.concatenate(parts)
    groups = torch.arange(len(EXAMPLES)).repeat_interleave(per_group)
    return structures, Prompts(seed, 0, structures.sizes, groups, torch.arange(len(groups)))


def _channel(values: Tensor, table: RewardTable, group_ids: Tensor) -> ChannelReport:
    """Measure one channel."""
    values = values.detach().cpu().double()
    finite = values.isfinite()
    shape = tuple(values.shape)
    if shape != (len(table),) or not bool(finite.any()):
        return ChannelReport(shape, int(finite.sum()), math.nan, math.nan, math.nan, 0)
    groups = Groups.of(group_ids.cpu())
    count = groups.sum(finite.double())
    mean = groups.sum(torch.where(finite, values, 0.0)) / count.clamp(min=1)
    squares = torch.where(finite, (values - mean[groups.index]).square(), 0.0)
    spread = (groups.sum(squares) / count.clamp(min=1)).sqrt()[count > 0]
    lowest = groups.smallest(torch.where(finite, values, torch.inf))
    highest = groups.largest(torch.where(finite, values, -torch.inf))
    known = values[finite]
    return ChannelReport(
        shape,
        int(finite.sum()),
        float(known.min()),
        float(known.max()),
        float(spread.mean()),
        int((highest <= lowest).sum()),
    )
