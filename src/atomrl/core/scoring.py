"""Scoring a rollout: streamed while sampling goes on, or all at once where samples are judged by each other."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from atomrl.core.protocols import Collective, Reward
from atomrl.core.records import Bucket, Prompts, RewardTable, Structures, Trajectory


class Scorer:
    """Scores the buckets of one rollout after another.

    A `per_sample` reward gets each bucket in a thread of its own while the next one is sampled. A `per_batch` reward
    gets the samples of all ranks once they are there; every rank computes the same table and keeps its own rows.

    Args:
        reward: gives the scores; closed with the scorer.
    """

    def __init__(self, reward: Reward) -> None:
        self.reward = reward
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="score")
        self._pending: list[Future[RewardTable]] = []

    def begin(self) -> None:
        """Forget what was started for a rollout that did not end, e.g. because of Ctrl-C in a notebook."""
        for future in self._pending:
            future.cancel()
        self._pending = []

    def start(self, bucket: Bucket) -> None:
        """Take a bucket that is complete."""
        if self.reward.scope == "per_sample":
            self._pending.append(self._thread.submit(self.reward.score, bucket.structures, bucket.prompts))

    def finish(self, trajectory: Trajectory, collective: Collective) -> RewardTable:
        """Scores of the rollout whose buckets were started, in its order."""
        if self.reward.scope == "per_sample":
            pending, self._pending = self._pending, []
            return RewardTable.concatenate([future.result() for future in pending])
        structures, prompts, rows = gathered(trajectory.structures, trajectory.prompts, collective)
        return self.reward.score(structures, prompts)[rows]

    def close(self) -> None:
        """Give back the thread and the reward's workers."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self.reward.close()


def gathered(
    structures: Structures, prompts: Prompts, collective: Collective
) -> tuple[Structures, Prompts, torch.Tensor]:
    """The samples of all ranks in the order of their ids, and the rows of this rank's, in its order, (B,) int64."""
    everyone, asked = structures.gather(collective), prompts.gather(collective)
    order = asked.sample_ids.argsort()
    asked = asked[order]
    return everyone[order], asked, torch.searchsorted(asked.sample_ids, prompts.sample_ids)
