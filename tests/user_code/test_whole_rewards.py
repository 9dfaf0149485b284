"""A whole reward of the user's that gives something else than scores: one line says what, by a check and in a run."""

from collections import Counter, defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from atomrl.config import CrystalConfig
from atomrl.config.crystals import CrystalReward
from atomrl.core.records import Prompts, RewardTable, Structures
from atomrl.domains import crystals as domain
from atomrl.domains.crystals import CrystalDomain
from atomrl.rewards.check import report
from atomrl.rewards.whole import RememberingReward, WholeReward, whole_reward
from atomrl.structures.examples import example_molecules
from atomrl.training.validation import FirstMemory
from atomrl.user_code.given import handed_over
from atomrl.util.errors import UserError


class Oxygen:
    """Of a user; what it answers is made of the right values, (B,), which are shares of oxygen."""

    weights: Any = {"oxygen": 1.0}  # noqa: RUF012 - as a user writes it

    def __init__(self, answer: Callable[[torch.Tensor], Any], scope: str = "per_sample") -> None:
        self.answer, self.scope = answer, scope

    def score(self, structures: Structures, prompts: Prompts) -> Any:
        return self.answer((structures.numbers == 8).sum(1).double() / structures.sizes)

    def close(self) -> None:
        pass


def table(values: Any, reasons: Any = None, **further: Any) -> RewardTable:
    return RewardTable({"oxygen": values}, (None,) * len(values) if reasons is None else reasons, **further)


MISSHAPEN = [
    (lambda values: {"oxygen": values}, "score gave dict for 16 samples; return a RewardTable of them"),
    (lambda values: values, "score gave Tensor for 16 samples; return a RewardTable of them"),
    (lambda _: None, "score gave NoneType for 16 samples; return a RewardTable of them"),
    (lambda values: table(values, (None,)), "score gave 1 rows for 16 samples; return a RewardTable of them"),
    (lambda _: RewardTable({}, (None,) * 16), "score gave a table without a channel"),
    (
        lambda values: table(values.numpy()),
        r"channel oxygen is ndarray, and must be a tensor of real numbers, \(16,\)",
    ),
    (lambda values: table(values.tolist()), r"channel oxygen is list, and must be a tensor of real numbers, \(16,\)"),
    (lambda values: table(values[:, None]), r"channel oxygen has shape \(16, 1\), and must be a tensor of real"),
    (lambda values: table(1j * values), "channel oxygen holds complex numbers, and must be"),
    (
        lambda values: table(values.to_sparse()),
        "channel oxygen is a sparse tensor, and must be a tensor of real numbers",
    ),
    (lambda values: table(values, [None] * 16), "reasons must be a tuple with a text or None for each sample"),
    (lambda values: table(values, ("",) * 16), "reasons must be a tuple with a text or None for each sample"),
    (lambda values: table(values, diagnostics={"x": 1.0}), "diagnostic x is float, and must be a tensor"),
    (
        lambda values: table(values, fields={"forces": values}),
        r"field forces has shape \(16,\), and must be a tensor, \(16, \d+, \.\.\.\)",
    ),
]


@pytest.mark.parametrize(("answer", "said"), MISSHAPEN)
def test_what_is_no_table_of_scores(answer: Callable[[torch.Tensor], Any], said: str) -> None:
    batch = example_molecules()
    for ask in (WholeReward(Oxygen(answer), "mine.py:Oxygen").score, lambda *given: report(Oxygen(answer), *given)):
        with pytest.raises(UserError, match=rf"^(mine.py:)?Oxygen: {said}") as caught:
            ask(*batch)
        assert "class Oxygen:" in caught.value.notes[0]


@pytest.mark.parametrize("scope", ["per_sample", "per_batch"])
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.float64])
def test_any_real_numbers_are_scores(dtype: torch.dtype, scope: str) -> None:
    own = Oxygen(lambda values: table((4 * values).to(dtype).requires_grad_(dtype.is_floating_point)), scope)
    found = WholeReward(own, "mine.py:Oxygen").score(*example_molecules())
    for values in (found.channels["oxygen"], found.diagnostics["raw_oxygen"]):
        assert (values.dtype, values.requires_grad) == (torch.float64, False)
    assert report(own, *example_molecules()).problems == ()


def test_a_missing_score_has_a_reason() -> None:
    def without(reason: str | None) -> Oxygen:
        reasons = (reason, *(None,) * 15)
        return Oxygen(lambda values: table(torch.cat([torch.tensor([np.inf]).double(), values[1:]]), reasons))

    said = "channel oxygen has NaN or infinity without a reason"
    assert report(without(None), *example_molecules()).problems == (said,)
    with pytest.raises(UserError, match=rf"mine\.py:Oxygen: {said}; return a finite number, or NaN with a reason"):
        WholeReward(without(None), "mine.py:Oxygen").score(*example_molecules())
    found = WholeReward(without("no_oxygen"), "mine.py:Oxygen").score(*example_molecules())
    assert found.channels["oxygen"][0].isnan()
    assert found.channels["oxygen"][1:].isfinite().all()


def test_a_score_that_changes_the_samples() -> None:
    class Moving(Oxygen):
        def score(self, structures: Structures, prompts: Prompts) -> Any:
            structures.positions.zero_()
            return super().score(structures, prompts)

    said = "score changes the positions of the structures: let it work on copies"
    structures, prompts = example_molecules()
    assert report(Moving(table), structures, prompts).problems == (said,)


def test_columns_that_come_and_go() -> None:
    """The tables of one rollout are joined, if each sample is scored by itself; an iteration ended in a traceback."""
    batch = example_molecules()
    extra = iter([{"x": torch.zeros(16)}, {}] * 2)
    answer = lambda values: table(values, diagnostics=next(extra))  # noqa: E731
    together = WholeReward(Oxygen(answer, "per_batch"), "mine.py:Oxygen")
    assert ["x" in together.score(*batch).diagnostics for _ in range(2)] == [True, False]
    reward = WholeReward(Oxygen(answer), "mine.py:Oxygen")
    reward.score(*batch)
    with pytest.raises(UserError, match=r"^mine.py:Oxygen: x is in some of its tables and not in others; give NaN"):
        reward.score(*batch)


@pytest.mark.parametrize(
    ("scope", "weights", "said"),
    [
        ("per-sample", {"oxygen": 1.0}, "its scope is 'per-sample'; it is one of per_sample, per_batch"),
        ("per_sample", {"oxygen": "1"}, "the weight of oxygen must be a finite number, got '1'"),
        ("per_sample", {"oxygen": np.nan}, "the weight of oxygen must be a finite number, got nan"),
    ],
)
def test_what_it_says_of_itself(scope: str, weights: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Oxygen, "weights", weights)
    with pytest.raises(UserError, match=f"mine.py:Oxygen: {said}"):
        WholeReward(Oxygen(table, scope), "mine.py:Oxygen")


class Remembering(Oxygen):
    """Of a user; remembers what it is given."""

    def __init__(self, memory: Any) -> None:
        super().__init__(table)
        self._memory = memory

    def remember(self, structures: Structures) -> None:
        pass

    def memory(self) -> Any:
        return self._memory

    def recall(self, memory: Any) -> None:
        self._memory = memory


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        ({"seen": {"CH4": np.int64(3)}}, "its memory holds numpy.* a checkpoint can be read only if it holds tensors"),
        (
            {"seen": defaultdict(int)},
            "its memory holds .*collections.defaultdict, and a checkpoint can be read only if",
        ),
        ({"seen": lambda: 0}, "its memory holds Can't pickle"),
        ([1, 2], r"memory gave list; return \{name: value\}"),
    ],
)
def test_a_memory_that_no_checkpoint_could_be_read_with(memory: Any, said: str) -> None:
    """A run says so when it begins: its checkpoints would be written, and none could be read."""
    with pytest.raises(UserError, match=f"^mine.py:Oxygen: {said}"):
        FirstMemory(RememberingReward(Remembering(memory), "mine.py:Oxygen"))


def test_a_memory_of_plain_values_and_tensors() -> None:
    memory = {"seen": Counter("ab"), "names": {"a"}, "sums": (torch.zeros(2), 1.0, None)}
    assert RememberingReward(Remembering(memory), "mine.py:Oxygen").memory() is memory


def test_half_of_what_remembers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was never asked to remember, without a word."""
    monkeypatch.delattr(Remembering, "recall")
    with (
        handed_over({"<python>:mine": Remembering({})}),
        pytest.raises(UserError, match="mine has no recall; it needs"),
    ):
        whole_reward([{"_target_": "<python>:mine"}])


def test_what_only_components_read_is_said_to_change_nothing(caplog: pytest.LogCaptureFixture) -> None:
    components = [{"_target_": "<python>:mine"}]
    config = CrystalConfig(reward=CrystalReward(components=components, combine="product"))
    model: Any = None  # is not asked
    with handed_over({"<python>:mine": Oxygen(table)}):
        assert isinstance(CrystalDomain().reward(config, model), WholeReward)
    assert "reward.combine=product and reward.pure_elements=true change nothing" in caplog.text


@pytest.mark.parametrize("mine", [Oxygen(table), lambda crystals: [1.0 for _ in crystals]], ids=["whole", "component"])
def test_a_force_field_that_no_part_of_a_crystal_reward_asks(
    mine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    components = [{"_target_": "<python>:mine"}]
    config = CrystalConfig(reward=CrystalReward(components=components, force_field="mace"))
    model: Any = SimpleNamespace(conditioning=None)
    monkeypatch.setattr(domain, "_vae", lambda _: None)
    with handed_over({"<python>:mine": mine}):
        CrystalDomain().reward(config, model)
    assert "reward.force_field changes nothing: no component of the reward reads an energy" in caplog.text
