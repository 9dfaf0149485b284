"""The shapes and types that the docstrings of `records.py` promise, checked on records of real rollouts and rewards.

Each function below mirrors the fields of a record. jaxtyping binds B, N, D, ... within one call, so that all fields
of a record must agree; beartype does the checking.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import pytest
import torch
from beartype import beartype
from jaxtyping import Bool, Float, Float64, Int64, TypeCheckError, jaxtyped
from torch import Tensor

from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.protocols import DiffusionPolicy
from atomrl.core.records import Bucket, Prompts, RewardTable, Step, Structures, Trajectory, Transition
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.force_fields.base import Evaluation
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.policies.molecule import MoleculePolicy
from atomrl.policies.toy import LearnedStdGaussian, SubspaceGaussian
from atomrl.rewards.dummy import DummyReward
from atomrl.rewards.force_energy import ForceEnergyConfig, ForceEnergyReward

Ids, Context = Int64[Tensor, "B"], Float[Tensor, "B C"]
Numbers, Positions, Real = Int64[Tensor, "B N"], Float[Tensor, "B N 3"], Bool[Tensor, "B N"]
Cell = Float[Tensor, "B 3 3"]
Latents, Mask, LogProb = Float[Tensor, "B N D"], Float[Tensor, "B N"], Float[Tensor, "B"]
Score, PerAtom = Float64[Tensor, "B"], Float64[Tensor, "B N ..."]

checked = jaxtyped(typechecker=beartype)


@checked
def prompts_fields(
    seed: int, iteration: int, sizes: Ids, group_ids: Ids, sample_ids: Ids, context: Context | None
) -> None: ...


@checked
def structures_fields(numbers: Numbers, positions: Positions, mask: Real, cell: Cell | None) -> None: ...


@checked
def transition_fields(index: int, t: float, s: float, trainable: bool, balance: float) -> None: ...


@checked
def step_fields(mean: Latents, std: Latents | float, prediction: Latents) -> None: ...


@checked
def bucket_fields(
    sizes: Ids, mask: Mask, before: Latents, after: Latents, log_prob: LogProb, numbers: Numbers, positions: Positions
) -> None:
    """A bucket at one of its transitions."""


@checked
def score_fields(sizes: Ids, channel: Score) -> None: ...


@checked
def per_atom_fields(numbers: Numbers, values: PerAtom) -> None: ...


def check(mirror: Callable[..., None], record: object) -> None:
    """Check a record whose mirror has the same names."""
    mirror(**{entry.name: getattr(record, entry.name) for entry in fields(record)})


def check_bucket(bucket: Bucket) -> None:
    check(prompts_fields, bucket.prompts)
    check(structures_fields, bucket.structures)
    numbers, positions = bucket.structures.numbers, bucket.structures.positions
    for index, log_prob in bucket.log_probs.items():
        before, after = bucket.latents[index], bucket.latents[index + 1]
        bucket_fields(bucket.prompts.sizes, bucket.mask, before, after, log_prob, numbers, positions)
        assert before.dtype == after.dtype == log_prob.dtype == bucket.mask.dtype
    assert set(bucket.latents) == {k for index in bucket.log_probs for k in (index, index + 1)}


def check_trajectory(trajectory: Trajectory) -> None:
    for transition in trajectory.walk:
        check(transition_fields, transition)
    for bucket in trajectory.buckets:
        check_bucket(bucket)
        assert tuple(bucket.log_probs) == trajectory.trained
    check(structures_fields, trajectory.structures)
    count = torch.arange(len(trajectory))
    prompts_fields(0, 0, count, trajectory.group_ids, trajectory.sample_ids, None)


def check_table(table: RewardTable, structures: Structures) -> None:
    for values in (*table.channels.values(), *table.diagnostics.values()):
        score_fields(structures.sizes, values)
    for values in table.fields.values():
        per_atom_fields(structures.numbers, values)
    assert len(table.reasons) == len(structures)
    assert all(reason is None or isinstance(reason, str) for reason in table.reasons)


class Flat:
    """A force field without forces, and without an answer for molecules of seven atoms."""

    elements = frozenset(range(1, 87))

    def evaluate(self, structures: Structures) -> list[Evaluation]:
        return [
            Evaluation.failed(size, "scf")
            if size == 7
            else Evaluation(-1.0, torch.zeros(size, 3).double().numpy(), None)
            for size in structures.sizes.tolist()
        ]

    def close(self) -> None: ...


MEAN = torch.tensor([0.0, 0, 0, 0.3, -0.5])
POLICIES: dict[str, Callable[[], DiffusionPolicy]] = {
    "subspace": lambda: SubspaceGaussian(MEAN),
    "learned_std": lambda: LearnedStdGaussian(MEAN),
    "edm": lambda: MoleculePolicy(EDMNetwork(EDMConfig(hidden=16, edge_hidden=8, layers=1))),
}
REWARDS = {
    "dummy": DummyReward(),
    "force_energy": ForceEnergyReward(Flat(), ForceEnergyConfig(use_energy=True, stability_channel="own")),
}


@dataclass(frozen=True)
class Case:
    """A policy and what it sampled."""

    policy: DiffusionPolicy
    trajectory: Trajectory


@pytest.fixture(scope="module", params=POLICIES)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    policy = POLICIES[request.param]()
    plan = PromptPlan(SizeDistribution({4: 1, 5: 1, 7: 2}), groups=4, samples_per_group=3, seed=3)
    trajectory = rollout(policy, plan.prompts(0), RolloutConfig(time_step=6, micro_batch_size=6, train_steps=3))
    assert len(trajectory.buckets) > 1
    return Case(policy, trajectory)


def steps(case: Case) -> list[Step]:
    """What the policy says about each transition of the first bucket that was recorded."""
    bucket = case.trajectory.buckets[0]
    walk: list[Transition] = [case.trajectory.walk[index] for index in case.trajectory.trained]
    return [case.policy.step(bucket.latents[t.index], bucket.mask, t, bucket.prompts) for t in walk]


def test_rollouts(case: Case) -> None:
    check_trajectory(case.trajectory)
    prompts: Prompts = case.trajectory.buckets[0].prompts
    check(prompts_fields, replace(prompts, context=torch.zeros(len(prompts), 2))[1:3])
    crystals = replace(case.trajectory.structures, cell=torch.eye(3).expand(len(case.trajectory), 3, 3))
    check(structures_fields, Structures.concatenate([crystals[:2], crystals[2:]]))


def test_steps(case: Case) -> None:
    for step in steps(case):
        check(step_fields, step)


@pytest.mark.parametrize("name", REWARDS)
def test_reward_tables(case: Case, name: str) -> None:
    tables = []
    for bucket in case.trajectory.buckets:
        tables.append(REWARDS[name].score(bucket.structures, bucket.prompts))
        check_table(tables[-1], bucket.structures)
    check_table(RewardTable.concatenate(tables), case.trajectory.structures)


def broken(case: Case) -> dict[str, Callable[[], None]]:
    """Checks of records in which one field has a wrong shape or type."""
    bucket = case.trajectory.buckets[0]
    prompts, structures, step = bucket.prompts, bucket.structures, steps(case)[0]
    table = REWARDS["force_energy"].score(structures, prompts)
    index = case.trajectory.trained[0]

    def with_latents(latents: Tensor) -> Bucket:
        return replace(bucket, latents={**bucket.latents, index: latents})

    def with_channel(values: Tensor) -> RewardTable:
        return replace(table, channels={**table.channels, "force": values})

    latents, force = bucket.latents[index], table.channels["force"]
    return {
        "a size missing": lambda: check(prompts_fields, replace(prompts, sizes=prompts.sizes[1:])),
        "ids that are floats": lambda: check(prompts_fields, replace(prompts, sample_ids=prompts.sizes.float())),
        "context of another batch": lambda: check(prompts_fields, replace(prompts, context=torch.zeros(1, 2))),
        "flat positions": lambda: check(
            structures_fields, replace(structures, positions=structures.positions[..., :2])
        ),
        "a mask of numbers": lambda: check(structures_fields, replace(structures, mask=structures.mask.float())),
        "one cell for all": lambda: check(structures_fields, replace(structures, cell=torch.eye(3))),
        "a mean of another size": lambda: check(step_fields, replace(step, mean=step.mean[:, 1:])),
        "a std per feature": lambda: check(step_fields, replace(step, std=torch.ones(step.mean.shape[-1]))),
        "latents without a sample": lambda: check_bucket(with_latents(latents[1:])),
        "latents without an atom": lambda: check_bucket(with_latents(latents[:, 1:])),
        "latents without a feature": lambda: check_bucket(with_latents(latents[..., 1:])),
        "a log-probability per atom": lambda: check_bucket(
            replace(bucket, log_probs={**bucket.log_probs, index: latents[..., 0]})
        ),
        "a channel with a column": lambda: check_table(with_channel(force[:, None]), structures),
        "a channel in float32": lambda: check_table(with_channel(force.float()), structures),
        "forces of fewer atoms": lambda: check_table(
            replace(table, fields={"forces": table.fields["forces"][:, 1:]}), structures
        ),
    }


def test_a_wrong_shape_is_caught(case: Case) -> None:
    for name, work in broken(case).items():
        try:
            work()
        except TypeCheckError:
            continue
        pytest.fail(f"not caught: {name}")
