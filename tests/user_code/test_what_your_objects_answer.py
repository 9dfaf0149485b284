"""Objects of the user's that answer otherwise than asked, or raise: one line says which, the note shows their line."""

import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import atomrl
from atomrl.core.advantages import Advantages
from atomrl.core.objectives.base import StepLoss
from atomrl.core.records import Structures
from atomrl.evaluation.kept_results import evaluate_in_lots
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.force_fields.base import Evaluation
from atomrl.force_fields.own import OwnForceField
from atomrl.policies.own import OwnPolicy
from atomrl.policies.toy import SubspaceGaussian
from atomrl.rewards.check import example_crystals
from atomrl.rewards.components import PredictorReward
from atomrl.rewards.force_energy import ForceEnergyConfig, ForceEnergyReward
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.structures.examples import example_molecules
from atomrl.structures.listing import MOLECULES
from atomrl.testing import check_force_field
from atomrl.training.own_objective import OwnObjective
from atomrl.util.errors import UserCodeError, UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from small_backbone import TINY


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Answers:
    """A force field that has its answers already."""

    elements = frozenset(range(1, 87))

    def __init__(self, answers: list[Evaluation]) -> None:
        self.answers = answers

    def evaluate(self, structures: Structures) -> list[Evaluation]:
        return self.answers

    def close(self) -> None:
        """Nothing to give back."""


def test_a_failed_result_of_the_users_needs_no_numbers_and_nan_is_no_result() -> None:
    """Of six molecules one has a result, of a network in single precision; the others cost themselves alone."""
    molecules, prompts = example_molecules()
    structures, prompts = molecules[:6], prompts[:6]
    zeros = [np.zeros((size, 3), dtype=np.float32) for size in structures.sizes.tolist()]
    answers = [
        Evaluation(np.float32(-1.0), zeros[0], None),
        Evaluation(float("nan"), None, "no_parameters"),
        Evaluation(0.0, np.zeros((0, 3)), "no_parameters"),
        Evaluation(float("nan"), zeros[3], None),
        Evaluation(float("inf"), zeros[4], None),
        Evaluation(-1.0, np.full_like(zeros[5], np.nan), None),
    ]
    config = ForceEnergyConfig(use_energy=True, energy_atom_refs=None)
    table = ForceEnergyReward(OwnForceField(Answers(answers), "mine"), config).score(structures, prompts)
    assert table.reasons == (None, *["no_parameters"] * 2, *["nonfinite_result"] * 3)
    for channel in ("force", "energy"):
        assert table.channels[channel].isfinite().tolist() == [True, *[False] * 5]
    for answer, said in (
        (Evaluation(-1.0, None, None), "gives no forces"),
        (Evaluation("low", zeros[0], None), "'low'"),
    ):
        with pytest.raises(UserError, match=said):
            ForceEnergyReward(OwnForceField(Answers([answer]), "mine"), config).score(structures[:1], prompts[:1])


def test_a_check_of_a_force_field_without_forces() -> None:
    """It was a traceback."""
    answers = [Evaluation(float("nan"), None, "scf"), Evaluation(-1.0, None, None)]
    with pytest.raises(AssertionError, match="structure 1: its result has no forces"):
        check_force_field(OwnForceField(Answers(answers), "mine"), example_molecules()[0][:2])


def test_energies_of_crystals_that_have_no_forces_are_kept(tmp_path: Path) -> None:
    """As those of a second judge, by an evaluation that may be continued."""
    crystals, _ = example_crystals()
    field = OwnForceField(Answers([Evaluation(-1.0 * size, None, None) for size in crystals.sizes.tolist()]), "mine")
    for _ in range(2):
        found = evaluate_in_lots(field, crystals, KeptSamples(tmp_path), "mine", len(crystals), "energies")
        assert [result.energy for result in found] == (-1.0 * crystals.sizes).tolist()
        assert all(np.isnan(result.forces).all() for result in found)


class Predictor:
    """Of a user, given from Python or by `_target_`."""

    def predict(self, structures: object) -> dict[str, torch.Tensor]:
        return {"gap": torch.zeros(2) @ torch.zeros(3)}


def test_what_a_predictor_raises() -> None:
    """The component is the package's, the line is the user's."""
    reward = ReinforceReward([PredictorReward(Predictor(), "gap")], listing=MOLECULES)
    said = "the reward component gap, called on 16 samples, raised RuntimeError"
    with pytest.raises(UserCodeError, match=said) as caught:
        reward.score(*example_molecules())
    assert "in predict" in caught.value.notes[0]


class Answering:
    """A predictor of a user's."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def predict(self, structures: Structures) -> Any:
        return self.answer(structures)


@pytest.mark.parametrize(
    ("predict", "said"),
    [
        (lambda structures: torch.zeros(len(structures)), "Answering gave Tensor; return {'gap': one number per"),
        (lambda _: None, "Answering gave NoneType; return {'gap': one number per structure}"),
        (lambda structures: {"gap": structures.positions.zero_().sum((1, 2))}, "gap changes gen_structures or batch_"),
    ],
)
def test_a_predictor_that_answers_otherwise(predict: Any, said: str) -> None:
    """Each was a traceback, but the last, which was not noticed."""
    reward = ReinforceReward([PredictorReward(Answering(predict), "gap")], listing=MOLECULES)
    with pytest.raises(UserError, match=said) as caught:
        reward.score(*example_molecules())
    assert caught.value.notes


def test_a_predictor_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's error comes from no line of the user's; it was taken for one of ours."""
    monkeypatch.setattr(Answering, "predict", lambda self: {})
    reward = ReinforceReward([PredictorReward(Answering(None), "gap")], listing=MOLECULES)
    with pytest.raises(
        UserCodeError, match="the reward component gap, called on 16 samples, raised TypeError"
    ) as caught:
        reward.score(*example_molecules())
    assert "class Answering" in caught.value.notes[0]


class Objective:
    """Of a user, who answers with what the test wants."""

    needs_reference = needs_walk = False

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def old_decay(self, iteration: int) -> float | None:
        return {}[iteration]

    def advantages(self, *_: object) -> object:
        return self.answer

    terms = loss = advantages


@pytest.mark.parametrize(
    ("method", "answer", "said"),
    [
        ("advantages", torch.zeros(2), "advantages must return Advantages, got Tensor"),
        ("advantages", Advantages(torch.zeros(3), {}), r"advantages must be one number per sample, \(2,\), got"),
        ("terms", [], "terms must return a list of terms, got an empty one"),
        ("loss", torch.zeros(2), "loss must return a StepLoss, got Tensor"),
        ("loss", StepLoss(torch.zeros(()), {}), r"the loss must be one number per sample, \(2,\), got shape \(\)"),
        ("loss", StepLoss(torch.zeros(2), {}), "the loss has no gradient"),
        (
            "advantages",
            Advantages(torch.zeros(2), {"force": torch.zeros(2, 1)}),
            r"advantages of the channel force must be one number per sample, \(2,\), got shape \(2, 1\)",
        ),
        (
            "loss",
            StepLoss(torch.zeros(2, requires_grad=True), {"ratio": 0.5}),
            r"what is counted as ratio must be one number per sample, \(2,\), got float",
        ),
    ],
)
def test_what_an_objective_answers(method: str, answer: object, said: str) -> None:
    """The note shows the class, or where the answer came from."""
    samples = [None] * 2
    given = {"advantages": (samples, None, None, None), "terms": (None, 0), "loss": (None, samples, None)}[method]
    with pytest.raises(UserError, match=f"the objective Objective: {said}") as caught:
        getattr(OwnObjective(Objective(answer)), method)(*given)
    assert Path(__file__).name in caught.value.notes[0]


def test_what_an_objective_raises() -> None:
    with pytest.raises(UserCodeError, match="the objective Objective, asked for old_decay, raised KeyError: 7"):
        OwnObjective(Objective(None)).old_decay(7)


class Walking(SubspaceGaussian):
    """A policy of a user; what it answers in place of what it should, or None: it is asked for what it has not."""

    sizes: ClassVar = {4: 2, 6: 1}

    def __init__(self, wrong: str = "", answer: object = None) -> None:
        super().__init__(torch.tensor([0.0, 0, 0, 0.3]))
        self.wrong, self.answer = wrong, answer

    def _asked(self, method: str, *arguments: object) -> Any:
        if self.wrong != method:
            return getattr(super(), method)(*arguments)
        return {}[method] if self.answer is None else self.answer

    def step(self, *arguments: object) -> Any:
        return self._asked("step", *arguments)

    def levels(self, *arguments: object) -> Any:
        return self._asked("levels", *arguments)

    def transitions(self, *arguments: object) -> Any:
        return self._asked("transitions", *arguments)

    def read(self, *arguments: object) -> Any:
        return self._asked("read", *arguments)

    def reference(self, *arguments: object) -> Any:
        return self._asked("reference", *arguments)


def test_what_a_policy_raises(folder: Path) -> None:
    """In a training, and when samples are drawn; a right one trains."""
    plain = [word for word in TINY if not word.startswith(("reward.type", "reward.components", "train.energy"))]
    plain += ["dataloader.epoches=1", "reward.workers=1"]
    with pytest.raises(UserCodeError, match="the policy Walking, asked for step in iteration 0, raised KeyError: 'ste"):
        atomrl.train("demo", [*plain, "save_path=wrong"], reward="dummy", policy=Walking("step"))
    assert not Path("wrong").exists()
    run = atomrl.train("demo", [*plain, "save_path=right"], reward="dummy", policy=Walking())
    assert isinstance(run.policy, Walking)
    with pytest.raises(UserCodeError, match="the policy Walking, asked for step, raised KeyError: 'step'") as caught:
        atomrl.Run("right", policy=Walking("step")).sample(2, time_step=5)
    assert Path(__file__).name in caught.value.notes[0]
    assert "in _asked" in caught.value.notes[0]


@pytest.mark.parametrize(
    ("method", "answer", "said"),
    [
        ("step", (1, 2), "step must return Step, got tuple"),
        ("levels", torch.zeros(2), "levels must return two tensors, alpha_t and sigma_t, got Tensor"),
        ("levels", (torch.zeros(2), 1.0), "levels must return two tensors, alpha_t and sigma_t, got tuple"),
        ("transitions", (1.0, 0.0), "transitions must return a tuple of Transition, got tuple"),
        ("read", torch.zeros(2), "read must return Structures, got Tensor"),
    ],
)
def test_what_a_policy_answers(method: str, answer: object, said: str) -> None:
    """The note shows the class."""
    arguments = {"step": (None,) * 4, "levels": (None,), "transitions": (2,), "read": (None,) * 3}[method]
    with pytest.raises(UserError, match=f"the policy Walking: {said}") as caught:
        getattr(OwnPolicy(Walking(method, answer)), method)(*arguments)
    assert "class Walking(SubspaceGaussian):" in caught.value.notes[0]


def test_models_that_a_policy_keeps() -> None:
    """Entering is asked of the policy; what is done meanwhile is not."""
    said = "the policy Walking, asked for reference, raised KeyError: 'reference'"
    with pytest.raises(UserCodeError, match=said), OwnPolicy(Walking("reference")).reference():
        pytest.fail("it was entered")
    policy = OwnPolicy(Walking())
    policy.keep_reference()

    def stop_meanwhile() -> None:
        with policy.reference():
            assert policy.answering is policy.inner.initial
            raise LookupError("not the policy's")

    with pytest.raises(LookupError, match="not the policy's"):
        stop_meanwhile()
    assert policy.answering is policy.inner.current


def test_a_policy_that_cannot_be_copied(folder: Path) -> None:
    policy = Walking()
    policy.lock = threading.Lock()
    with pytest.raises(UserCodeError, match="the policy Walking, copied, so that yours stays as it is, raised TypeErr"):
        atomrl.train("demo", [*TINY, "save_path=run"], policy=policy)
