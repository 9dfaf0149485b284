"""A prefix that a group shares, in both domains: what agrees, who walks it, and what is kept of it."""

from collections import Counter

import pytest
import torch
from crystal_models import small_policy

from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import Trajectory
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.policies.molecule import MoleculePolicy

GROUPS, EACH, STEPS, PREFIX = 3, 4, 9, 6


def molecule_policy() -> MoleculePolicy:
    torch.manual_seed(0)
    return MoleculePolicy(EDMNetwork(EDMConfig(hidden=16, edge_hidden=8, layers=2)))


def bytes_of_latents(trajectory: Trajectory) -> int:
    """Memory that the places of all walks take, memory that two tensors share counted once."""
    storages = {
        latents.untyped_storage().data_ptr(): latents.untyped_storage().nbytes()
        for bucket in trajectory.buckets
        for latents in bucket.latents.values()
    }
    return sum(storages.values())


@pytest.mark.parametrize("policy", [molecule_policy, small_policy], ids=["molecules", "crystals"])
def test_a_group_shares_its_prefix(policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members agree bit for bit up to the branch and differ after it, one walk for each group is asked of the network
    before it, and the places of the prefix are not kept.
    """
    made = policy()
    asked: Counter[int] = Counter()
    step = made.step

    def counted(latents, mask, transition, prompts):
        asked[transition.index] += len(latents)
        return step(latents, mask, transition, prompts)

    monkeypatch.setattr(made, "step", counted)
    prompts = PromptPlan(SizeDistribution({4: 1, 6: 1}), GROUPS, EACH, seed=5).prompts(0)
    shared = RolloutConfig(STEPS, GROUPS * EACH, share_initial_noise=True, skip_prefix=PREFIX)
    with_suffix = rollout(made, prompts, shared)
    assert asked == {index: GROUPS * (1 if index < PREFIX else EACH) for index in range(STEPS)}
    whole = RolloutConfig(STEPS, GROUPS * EACH, share_initial_noise=True, skip_prefix=PREFIX, return_suffix_only=False)
    everything = rollout(made, prompts, whole)
    for bucket in everything.buckets:
        groups = len(bucket.mask) // EACH
        for place, latents in bucket.latents.items():
            by_group = latents.unflatten(0, (groups, EACH))
            same = (by_group == by_group[:, :1]).flatten(2).all(2)[:, 1:]
            assert same.all() if place <= PREFIX else not same.any()
    places, kept = ({place for bucket in one.buckets for place in bucket.latents} for one in (everything, with_suffix))
    assert kept == {place for place in places if place >= PREFIX}
    assert bytes_of_latents(with_suffix) <= bytes_of_latents(everything) * len(kept) / len(places)
