"""Stages between scores and advantages: each rule by itself, and that a reward's own scores need no siblings."""

import math

import pytest
import torch

from atomrl.core.collective import Alone
from atomrl.core.records import GATED, Prompts, RewardTable, Structures
from atomrl.core.stages import (
    FailedScores,
    FailedTotal,
    Gate,
    Penalties,
    SampleContext,
    Total,
    apply_stages,
    total_reward,
)
from atomrl.rewards.dummy import DummyReward
from atomrl.training.score_log import summarise
from atomrl.util.errors import UserError

NAN = math.nan


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def context(groups: list[int], active: list[bool] | None = None) -> SampleContext:
    count = len(groups)
    sizes = torch.ones(count, dtype=torch.int64)
    structures = Structures(sizes[:, None], torch.zeros(count, 1, 3), sizes[:, None] > 0)
    prompts = Prompts(0, 0, sizes, torch.tensor(groups), torch.arange(count))
    return SampleContext(prompts, structures, torch.tensor(active or [True] * count), Alone())


def table(reasons: tuple[str | None, ...] | None = None, stable: list[float] | None = None, **channels) -> RewardTable:
    columns = {name: tensor(values) for name, values in channels.items()}
    count = len(next(iter(columns.values())))
    diagnostics = {} if stable is None else {"stability": tensor(stable)}
    return RewardTable(columns, reasons or (None,) * count, diagnostics=diagnostics)


def test_stages_are_applied_in_order() -> None:
    """Gate first, so that what is paid for instability is not gated away; the total is of what came out."""
    given = table(force=[-1.0, -2.0, -4.0], penalty=[0.0, -10.0, 0.0], stable=[1, 0, 1])
    found = apply_stages(
        [Gate("force"), Penalties("penalty", "force"), Total({"force": 2.0})], given, context([0, 0, 0])
    )
    assert found.channels["force"].tolist() == [-1.0, -14.0, -4.0]
    assert found.diagnostics["reward"].tolist() == [-2.0, -28.0, -8.0]
    assert list(found.channels) == ["force"]
    assert given.channels["force"].tolist() == [-1.0, -2.0, -4.0]


def test_worst_of_the_group_or_of_the_batch() -> None:
    given = table(reasons=(None, "scf", None, "scf", "scf"), a=[1.0, NAN, 5.0, NAN, NAN])
    samples = context([0, 0, 1, 1, 2])
    found = FailedScores()(given, samples)
    assert found.channels["a"][:4].tolist() == [1, 1, 5, 5]
    assert found.channels["a"][4].isnan()
    assert found.filled["a"].tolist() == [False, True, False, True, False]
    over_batch = FailedScores(over_batch=True)(given, samples)
    assert over_batch.channels["a"].tolist() == [1, 1, 5, 1, 1]
    assert FailedScores("mask")(given, samples) is given


def test_withheld_and_unusable_samples_are_not_filled_and_set_no_example() -> None:
    given = table(reasons=(GATED, "scf", None, None), a=[NAN, NAN, 3.0, -100.0])
    found = FailedScores()(given, context([0, 0, 0, 0], active=[True, True, True, False]))
    assert found.channels["a"].nan_to_num(7.0).tolist() == [7.0, 3.0, 3.0, -100.0]
    assert found.filled["a"].tolist() == [False, True, False, False]


@pytest.mark.parametrize("other", ["scf", None])
def test_what_one_channel_withholds_and_what_another_one_failed_are_told_apart(other: str | None) -> None:
    """Whichever reason the sample is known by: the gated force is left out, and the failed energy is the worst."""
    given = table((None, other, None), stable=[1, 0, 1], force=[-1.0, -2.0, -4.0], energy=[1.0, NAN, 3.0])
    found = apply_stages([Gate("force", "mask"), FailedScores()], given, context([0, 0, 0]))
    assert found.reasons[1] == (other or GATED)
    assert found.channels["force"][1].isnan()
    assert found.channels["energy"].tolist() == [1.0, 1.0, 3.0]


def test_penalties_leave_out_what_their_target_leaves_out() -> None:
    given = table(stable=[1, 0], force=[-1.0, -2.0], penalty=[0.0, -10.0])
    found = apply_stages([Gate("force", "mask"), Penalties("penalty", "force"), FailedScores()], given, context([0, 0]))
    assert found.channels["force"].nan_to_num(7.0).tolist() == [-1.0, 7.0]
    assert found.withheld["force"].tolist() == [False, True]


def test_the_log_shows_no_score_that_a_rule_gave() -> None:
    given = table(reasons=(None, "scf", None), a=[1.0, NAN, 3.0])
    filled = FailedScores()(given, context([0, 0, 0]))
    assert summarise(filled) == summarise(given)
    assert summarise(filled)["a_reward_mean"] == 2.0


def test_a_sample_without_a_total_counts_as_the_worst_of_the_batch() -> None:
    samples, stage = context([0, 0, 1]), FailedTotal("raw_reward")
    given = RewardTable({}, (None, "scf", None), diagnostics={"raw_reward": tensor([3.0, NAN, -1.0])})
    assert stage(given, samples).diagnostics["raw_reward"].tolist() == [3, -1, -1]
    nothing = RewardTable({}, ("scf",) * 3, diagnostics={"raw_reward": tensor([NAN] * 3)})
    assert stage(nothing, samples).diagnostics["raw_reward"].isnan().all()
    without = table(a=[1.0, 2.0, 3.0])
    assert stage(without, samples) is without


def test_the_log_counts_all_failures_of_a_kind() -> None:
    reasons = ("error: ValueError: 3 atoms", "scf", "error: ValueError: 4 atoms", None, "error: ValueError: 3 atoms")
    found = summarise(table(reasons=reasons, a=[NAN, NAN, NAN, 1.0, NAN]))
    assert {name: found[name] for name in found if name.startswith("failed")} == {
        "failed": 4.0,
        "failed_error": 3.0,
        "failed_scf": 1.0,
    }


def test_a_stage_names_what_the_reward_lacks() -> None:
    with pytest.raises(UserError, match="reads the channel energy, the reward gives force"):
        Gate("energy")(table(force=[1.0], stable=[1.0]), context([0]))
    with pytest.raises(UserError, match="reads the diagnostic stability, the reward gives none"):
        Gate("force")(table(force=[1.0]), context([0]))
    with pytest.raises(UserError, match="worst, mask; got 'best'"):
        FailedScores("best")
    with pytest.raises(UserError, match="floor, mask, published; got 'flor'"):
        Gate("force", "flor")


def test_a_reward_without_a_total_cannot_choose() -> None:
    samples = Structures(torch.tensor([[6, 1]]), torch.rand(1, 2, 3), torch.ones(1, 2, dtype=torch.bool))
    asked = context([0]).prompts
    with pytest.raises(UserError, match=r"DummyReward has channels \(force, energy\) and no total"):
        total_reward(DummyReward(), (), samples, asked)
    weighed = total_reward(DummyReward(), (Total({"force": 1.0, "energy": 2.0}),), samples, asked)
    assert weighed.shape == (1,)
