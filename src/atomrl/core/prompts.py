"""Prompts of an iteration: what to generate, in which groups. A pure function of (seed, iteration)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch

from atomrl.core.conditioning import Conditioning
from atomrl.core.random import generator
from atomrl.core.records import Prompts, Structures
from atomrl.util.errors import UserError


@dataclass(frozen=True)
class SizeDistribution:
    """Histogram of atoms per sample.

    Attributes:
        counts: {atoms: weight}.
    """

    counts: Mapping[int, float]

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 1 or min(self.counts.values()) < 0 or not sum(self.counts.values()):
            raise UserError(f"a size histogram needs sizes >= 1 with weights >= 0, got {dict(self.counts)}")

    def focused(self, smallest: int | None, largest: int | None, multiplier: float) -> SizeDistribution:
        """The histogram with the weights of sizes in [smallest, largest] multiplied; None leaves an end open.

        Raises:
            UserError: no size lies in there, or none is left.
        """
        low = min(self.counts) if smallest is None else smallest
        high = max(self.counts) if largest is None else largest
        if not any(low <= size <= high for size in self.counts):
            asked = f"{smallest or 'any'} to {largest or 'any'}"
            raise UserError(
                f"no sample has {asked} atoms: the sizes are {min(self.counts)} to {max(self.counts)} atoms"
            )
        if not multiplier and low <= min(self.counts) and max(self.counts) <= high:
            raise UserError(f"a multiplier of {multiplier} leaves no size: narrow the sizes that it takes away")
        return SizeDistribution(
            {size: count * (multiplier if low <= size <= high else 1.0) for size, count in self.counts.items()}
        )


@dataclass(frozen=True)
class PromptPlan:
    """How to prompt.

    Attributes:
        sizes: distribution of the number of atoms.
        groups: prompts per iteration (`sample_group_size`).
        samples_per_group: samples per prompt (`each_prompt_sample`).
        seed: the run's seed.
        conditioning: what a conditional model is asked for; None: the model is unconditional.

    Raises:
        UserError: the model is conditional, and for one of the sizes nothing says what to ask for.
    """

    sizes: SizeDistribution
    groups: int
    samples_per_group: int
    seed: int = 0
    conditioning: Conditioning | None = None
    _table: tuple[torch.Tensor, torch.Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        atoms = sorted(self.sizes.counts)
        weights = torch.tensor([float(self.sizes.counts[size]) for size in atoms], dtype=torch.float64)
        object.__setattr__(self, "_table", (torch.tensor(atoms), weights))
        if self.conditioning is not None:
            self.conditioning.require([size for size in atoms if self.sizes.counts[size]])

    def prompts(self, iteration: int) -> Prompts:
        """Prompts of an iteration, groups in order of their size, so that neighbours pad each other little."""
        atoms, weights = self._table
        rng = generator("cpu", self.seed, iteration, "prompts")
        drawn = atoms[torch.multinomial(weights, self.groups, replacement=True, generator=rng)].sort().values
        group_ids = iteration * self.groups + torch.arange(self.groups)
        context = None
        if self.conditioning is not None:
            context = self.conditioning.context(drawn, group_ids, self.seed, iteration)
        return several(Prompts(self.seed, iteration, drawn, group_ids, group_ids, context), self.samples_per_group)

    def share(self, prompts: Prompts, rank: int, ranks: int) -> Prompts:
        """The rows of one rank: whole groups, dealt out in turn."""
        if self.groups % ranks:
            raise UserError(
                f"{self.groups} groups cannot be dealt evenly to {ranks} processes: "
                "make the number of groups a multiple of the number of processes"
            )
        group = torch.arange(len(prompts)) // self.samples_per_group
        return prompts[(group % ranks == rank).nonzero().squeeze(1)]


def several(prompts: Prompts, each: int) -> Prompts:
    """So many draws of each sample, one after another, (B * each,); they belong to the sample's group."""
    rows = torch.arange(len(prompts), device=prompts.sizes.device).repeat_interleave(each)
    return nth_draw(prompts[rows], each, torch.arange(each, device=rows.device).repeat(len(prompts)))


def nth_draw(prompts: Prompts, each: int, number: int | torch.Tensor) -> Prompts:
    """Another draw of each sample, whose ids are those of `several`.

    Args:
        prompts: B samples, numbered from 0 on; any of them.
        each: draws of each sample that there may be.
        number: which draw, below `each`; one for all, or (B,) int64.
    """
    return replace(prompts, sample_ids=prompts.sample_ids * each + number)


def cut_into_buckets(prompts: Prompts, micro_batch_size: int, max_waste: float = 0.05) -> list[Prompts]:
    """Cut prompts into batches of whole groups and nearly equal size.

    Args:
        prompts: rows of a group adjacent.
        micro_batch_size: samples that one bucket may hold at most.
        max_waste: groups of different sizes share a bucket while at most this fraction of its pairs is padding.

    Raises:
        UserError: a group is larger than `micro_batch_size`.
    """
    changes = (prompts.group_ids.diff() != 0).nonzero().squeeze(1) + 1
    edges = [0, *changes.tolist(), len(prompts)]
    groups = [torch.arange(start, end) for start, end in pairwise(edges)]
    sizes = [int(prompts.sizes[rows].max()) for rows in groups]
    largest = max(len(rows) for rows in groups)
    if largest > micro_batch_size:
        raise UserError(
            f"micro_batch_size={micro_batch_size} is smaller than a group of {largest} samples, and a group is never "
            f"split: set it to at least {largest}"
        )
    buckets: list[list[int]] = []
    pairs = samples = 0  # of the last bucket
    for index in sorted(range(len(groups)), key=lambda group: sizes[group]):
        own, square = len(groups[index]), sizes[index] ** 2
        pairs, samples = pairs + own * square, samples + own
        if buckets and samples <= micro_batch_size and 1 - pairs / (samples * square) <= max_waste:
            buckets[-1].append(index)
        else:
            buckets.append([index])
            pairs, samples = own * square, own
    return [prompts[torch.cat([groups[k] for k in members])] for members in buckets]


def ungrouped(structures: Structures) -> Prompts:
    """Prompts of samples that belong to one group, numbered in order."""
    places = torch.arange(len(structures))
    return Prompts(0, 0, structures.sizes, torch.zeros_like(places), places)
