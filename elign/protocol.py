"""A rollout under the published batch keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from atomrl.core.batch import pad_atoms
from atomrl.core.records import Trajectory

KEYS = (
    "group_index",
    "nodesxsample",
    "context",
    "timesteps",
    "latents",
    "next_latents",
    "log_prob_old",
    "mu_old",
)


class DataProto(Mapping[str, Tensor]):
    """What was recorded of a rollout, by published key.

    B samples follow the buckets in their order, S transitions the walk, N atoms are padded to the largest sample:

    | key | here |
    |---|---|
    | `group_index` | `Prompts.group_ids`, (B,) |
    | `nodesxsample` | `Prompts.sizes`, (B,) |
    | `context` | `Prompts.context`, (B, C); only of conditional models |
    | `timesteps` | `Transition.t` of the trained transitions, in [0, 1], (S,) |
    | `latents`, `next_latents` | `Bucket.latents` before and after these, (B, S, N, D) |
    | `log_prob_old` | `Bucket.log_probs`, (B, S) |
    | `mu_old` | `Bucket.means`, (B, S, N, D); only with `RolloutConfig.mean_at` of all trained transitions |

    Args:
        trajectory: that `rollout` returned.
    """

    def __init__(self, trajectory: Trajectory) -> None:
        self.trajectory = trajectory

    def __getitem__(self, key: str) -> Tensor:
        """The tensor of a key; KeyError if it was not recorded."""
        if key not in set(self):
            raise KeyError(f"{key}: not in this rollout, which has {', '.join(self)}")
        prompts, trained = self.trajectory.prompts, self.trajectory.trained
        if key == "group_index":
            return prompts.group_ids
        if key == "nodesxsample":
            return prompts.sizes
        if key == "context":
            assert prompts.context is not None
            return prompts.context
        if key == "timesteps":
            return torch.tensor([self.trajectory.walk[index].t for index in trained], device=prompts.sizes.device)
        if key == "log_prob_old":
            return torch.cat([_stacked(bucket.log_probs, trained) for bucket in self.trajectory.buckets])
        return self._latents(key)

    def __iter__(self) -> Iterator[str]:
        """The keys that were recorded."""
        prompts, trained = self.trajectory.prompts, set(self.trajectory.trained)
        absent = {
            *(() if prompts.context is not None else ("context",)),
            *(() if trained and trained <= self.trajectory.buckets[0].means.keys() else ("mu_old",)),
            *(() if trained else ("timesteps", "latents", "next_latents", "log_prob_old")),
        }
        return (key for key in KEYS if key not in absent)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _latents(self, key: str) -> Tensor:
        """Latents before or after the trained transitions, or the means of these, of all buckets."""
        buckets, after = self.trajectory.buckets, int(key == "next_latents")
        places = [index + after for index in self.trajectory.trained]
        atoms = max(bucket.mask.shape[1] for bucket in buckets)
        parts = []
        for bucket in buckets:
            held = bucket.means if key == "mu_old" else bucket.latents
            parts.append(_stacked({place: pad_atoms(held[place], atoms) for place in places}, places))
        return torch.cat(parts)


def _stacked(columns: Mapping[int, Tensor], places: Sequence[int]) -> Tensor:
    """Columns by place in the walk, as an axis behind the samples."""
    return torch.stack([columns[place] for place in places], dim=1)
