"""Scoring a rollout: streamed while sampling goes on, or all at once where samples are judged by each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import monotonic

import torch

from atomrl.core.alignment import forces_at as forces_at_place
from atomrl.core.protocols import Collective, Reward
from atomrl.core.records import Bucket, Prompts, RewardTable, Structures, Trajectory
from atomrl.util.errors import UserError
from atomrl.util.progress import bar

POTENTIALS = "potentials"
"""Part of the scoring's time that they take."""
FORCES = "forces"
"""Field of a table."""


@dataclass(frozen=True)
class Pending:
    """The calls of the reward that one bucket waits for.

    Attributes:
        finished: of its finished samples.
        potentials: of what z0_pred stands for: some places of the walk, and their scores, one place after another.
        samples: of the bucket.
    """

    finished: Future[RewardTable]
    potentials: tuple[tuple[Sequence[int], Future[RewardTable]], ...]
    samples: int

    @property
    def calls(self) -> list[Future[RewardTable]]:
        """All of them."""
        return [self.finished, *(scores for _, scores in self.potentials)]

    def table(self, forces_at: Collection[int]) -> RewardTable:
        """All scores in one table, once they are there."""
        potentials, seconds = {}, 0.0
        for places, future in self.potentials:
            scores = future.result()
            seconds += scores.seconds[POTENTIALS]
            for number, place in enumerate(places):
                potentials[place] = scores[number * self.samples : (number + 1) * self.samples]
        return with_potentials(self.finished.result(), potentials, seconds, forces_at)


def with_potentials(
    table: RewardTable, potentials: Mapping[int, RewardTable], seconds: float, forces_at: Collection[int]
) -> RewardTable:
    """The scores of finished samples with those of z0_pred.

    Args:
        table: of finished samples.
        potentials: by place of the walk; if there are none, the table stays as it is.
        seconds: that these took.
        forces_at: places whose forces are kept, as fields of the table; of all others nobody reads them.

    Raises:
        UserError: forces are asked for, and the reward has none.
    """
    if not potentials:
        return table
    fields = dict(table.fields)
    for place in forces_at:
        if FORCES not in potentials[place].fields:
            raise UserError("force alignment needs forces, and this reward has none: leave it out")
        fields[forces_at_place(place)] = potentials[place].fields[FORCES]
    bare = {place: replace(scores, fields={}, seconds={}, scored_structures={}) for place, scores in potentials.items()}
    return replace(table, potentials=bare, fields=fields, seconds={**table.seconds, POTENTIALS: seconds})


class Scorer:
    """Scores the buckets of one rollout after another.

    A `per_sample` reward gets each bucket in a thread of its own while the next one is sampled. A `per_batch` reward
    gets the samples of all ranks once they are there; every rank computes the same table and keeps its own rows. Where
    a rollout keeps what z0_pred stands for, that is scored too: the table's `potentials`.

    Args:
        reward: gives the scores; closed with the scorer.
        places_at_once: places of the walk whose potentials a `per_sample` reward gets in one call.
        forces_at: places whose forces are kept.
    """

    def __init__(self, reward: Reward, places_at_once: int = 32, forces_at: Collection[int] = ()) -> None:
        self.reward, self.places_at_once, self.forces_at = reward, places_at_once, forces_at
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="score")
        self._pending: list[Pending] = []

    def begin(self) -> None:
        """Forget what was started for a rollout that did not end, e.g. because of Ctrl-C in a notebook."""
        for pending in self._pending:
            for future in pending.calls:
                future.cancel()
        self._pending = []

    def start(self, bucket: Bucket) -> None:
        """Take a bucket that is complete."""
        if self.reward.scope != "per_sample":
            return
        finished = self._thread.submit(self.reward.score, bucket.structures, bucket.prompts)
        places, step = sorted(bucket.estimates), self.places_at_once
        lots = [places[start : start + step] for start in range(0, len(places), step)]
        potentials = tuple((lot, self._thread.submit(self._potentials, bucket, lot)) for lot in lots)
        self._pending.append(Pending(finished, potentials, len(bucket)))

    def finish(self, trajectory: Trajectory, collective: Collective) -> RewardTable:
        """Scores of the rollout whose buckets were started, in its order; with a progress bar where these are many."""
        if self.reward.scope == "per_sample":
            pending, self._pending = self._pending, []
            if pending[0].potentials:
                for future in bar([future for one in pending for future in one.calls], "score"):
                    future.result()
            return RewardTable.concatenate([one.table(self.forces_at) for one in pending])
        table = self._compared(trajectory.structures, trajectory.prompts, collective)
        started = monotonic()
        potentials = {
            place: self._compared(structures, trajectory.prompts, collective)
            for place, structures in bar(sorted(trajectory.estimates.items()), "score")
        }
        return with_potentials(table, potentials, monotonic() - started, self.forces_at)

    def close(self) -> None:
        """Give back the thread and the reward's workers."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self.reward.close()

    def _potentials(self, bucket: Bucket, places: Sequence[int]) -> RewardTable:
        """Scores of what z0_pred stands for at some places, one place after another, and the time they took."""
        started = monotonic()
        structures = Structures.concatenate([bucket.estimates[place] for place in places])
        scores = self.reward.score(structures, Prompts.concatenate([bucket.prompts] * len(places)))
        return replace(scores, seconds={POTENTIALS: monotonic() - started})

    def _compared(self, structures: Structures, prompts: Prompts, collective: Collective) -> RewardTable:
        """Scores of this process's samples beside those of all others."""
        everyone, asked, rows = gathered(structures, prompts, collective)
        return self.reward.score(everyone, asked)[rows]


def gathered(
    structures: Structures, prompts: Prompts, collective: Collective
) -> tuple[Structures, Prompts, torch.Tensor]:
    """The samples of all ranks in the order of their ids, and the rows of this rank's, in its order, (B,) int64."""
    everyone, asked = structures.gather(collective), prompts.gather(collective)
    order = asked.sample_ids.argsort()
    asked = asked[order]
    return everyone[order], asked, torch.searchsorted(asked.sample_ids, prompts.sample_ids)
