"""Mistakes in code of the user's: one line says what called it, the next show the line of theirs; exit code 2."""

import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import atomrl
from atomrl.cli import main
from atomrl.config import load_config
from atomrl.core.advantages import Advantages
from atomrl.core.objectives.base import StepLoss
from atomrl.core.records import Structures
from atomrl.evaluation.kept_results import evaluate_in_lots
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.force_fields import molecules
from atomrl.force_fields.base import Evaluation
from atomrl.force_fields.build import build_force_field
from atomrl.force_fields.own import OwnForceField
from atomrl.policies.own import OwnPolicy
from atomrl.policies.toy import SubspaceGaussian
from atomrl.rewards.check import example_crystals
from atomrl.rewards.components import CustomReward, PredictorReward
from atomrl.rewards.force_energy import ForceEnergyConfig, ForceEnergyReward
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.structures.examples import example_molecules
from atomrl.structures.listing import MOLECULES
from atomrl.training.own_objective import OwnObjective
from atomrl.training.run import train
from atomrl.user_code.calling import calling
from atomrl.user_code.targets import made
from atomrl.util.errors import RankError, UserCodeError, UserError
from atomrl.workers.worker import load_task

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from small_backbone import TINY, write

CODE = """
from pathlib import Path

import numpy as np
import torch

from atomrl.rewards.components import RewardComponent

seen = []


def score(structures, scale=1.0):
    seen.extend(structures)
    if Path("broken").exists() and len(seen) > 12:
        raise ValueError("these atoms\\nare strange")
    return [scale * len(atoms) for atoms in structures]


def divides(structures):
    return 1 / 0


def flat(structures):
    return np.zeros((len(structures), 2))


def words(structures):
    return "good"


def nothing(structures):
    [len(atoms) for atoms in structures]


class Handing(RewardComponent):
    def __init__(self, target=None, **options):
        super().__init__(**options)

    def compute(self, gen_structures, **kwargs):
        return torch.zeros(len(gen_structures))


class Popping(RewardComponent):
    def __init__(self, **options):
        self.target = options.pop("target", None)
        super().__init__(**options)

    def compute(self, gen_structures, **kwargs):
        return torch.zeros(len(gen_structures))


class Refuses(RewardComponent):
    def __init__(self, target):
        super().__init__()
        self.table = {}[target]

    def compute(self, gen_structures, **kwargs):
        return torch.zeros(len(gen_structures))


class Plain:
    def __init__(self, target):
        self.target = target

    def compute(self, gen_structures, **kwargs):
        return torch.zeros(len(gen_structures))


class Narrow:
    def compute(self, structures):
        return torch.zeros(len(structures))


class Field:
    elements = frozenset(range(1, 10))

    def __init__(self, answer="nothing"):
        self.answer = answer

    def evaluate(self, structures):
        if self.answer == "nothing":
            return {}["key"]
        return self.answer

    def close(self):
        pass
"""


CALCULATOR = """
import numpy as np
from ase.calculators.calculator import Calculator, all_changes


class Bonds(Calculator):
    implemented_properties = ["energy", "forces"]

    def __init__(self, length=1.0, only=100):
        super().__init__()
        self.only = only

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if len(self.atoms) < self.only:
            raise LookupError("no parameters")
        self.results = {"energy": 0.0, "forces": np.zeros((len(self.atoms), 3))}
"""


def line_of(text: str, code: str = CODE) -> int:
    """Number of the line that begins with a text."""
    return next(number for number, line in enumerate(code.splitlines(), 1) if line.strip().startswith(text))


PLACE = f"bonds.py, line {line_of('raise LookupError', CALCULATOR)}, in calculate"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with code of the user's and a small backbone."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(CODE)
    Path("bonds.py").write_text(CALCULATOR)
    Path("broken.py").write_text("x = 1\ndef f(:\n")
    Path("named.py").write_text("import math\n\nLIMIT = mat.inf\n")
    Path("lacking.py").write_text("import json\nimport not_installed_anywhere\n")
    write(tmp_path / "backbone")
    return tmp_path


NO_PHYSICS = ["reward.use_energy=false", "train.force_adv_weight=0", "train.energy_adv_weight=0"]


def words(*more: str) -> list[str]:
    """Of a tiny training."""
    alone = any("components=[{_target_: " in word and "xtb" not in word for word in more)
    own = NO_PHYSICS if alone else []
    return ["train", *TINY, *own, "model.backbone=backbone", "save_path=run", "reward.workers=1", *more]


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The lines of a refused command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: ")
    return lines


def component(name: str, **options: object) -> str:
    given = "".join(f", {key}: {value}" for key, value in options.items())
    return f"reward.components=[{{_target_: {name}{given}}}]"


def test_in_the_first_iteration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said, frame, code, *_, last = told(capsys, *words(component("mine.py:divides")))
    assert said.startswith("error: the reward component divides, called on ")
    assert said.endswith(" in iteration 0, raised ZeroDivisionError: division by zero")
    assert frame == f'  File "mine.py", line {line_of("return 1 / 0")}, in divides'
    assert code.strip() == "return 1 / 0"
    assert last == "with ATOMRL_TRACEBACK=1 the whole traceback is printed"
    assert not (folder / "run").exists()


def test_later_the_run_can_go_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last whole iteration is saved, the whole traceback lies beside it, and the mended reward continues."""
    Path("broken").touch()
    said, frame, *_, last = told(capsys, *words(component("mine.py:score")))
    assert said.endswith(" in iteration 2, raised ValueError: these atoms are strange")
    assert frame == f'  File "mine.py", line {line_of("raise ValueError")}, in score'
    assert last == "the whole traceback: run/traceback.txt"
    whole = Path("run/traceback.txt").read_text()
    assert whole.startswith("Traceback")
    assert "reinforce.py" in whole
    saved = torch.load("run/checkpoint_latest.pth", weights_only=True)["atomrl"]
    assert saved["iteration"] == 1
    Path("broken").unlink()
    main(["resume", "run", "--trust-code"])
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == 4


def test_the_whole_traceback_on_demand(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATOMRL_TRACEBACK", "1")
    said, *lines = told(capsys, "check-reward", "mine.py:divides", "--molecules")
    assert said.startswith("error: the reward component divides, called on ")
    assert "Traceback (most recent call last):" in lines


def test_from_python_the_exception_is_the_cause(folder: Path) -> None:
    config = load_config("demo", [*words(component("mine.py:divides"))[1:]])
    with pytest.raises(UserCodeError) as caught:
        train(config, "mine")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "mine.py" in caught.value.notes[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flat", "got shape"),
        ("words", "got str, which is not an array of numbers"),
        ("nothing", "got None, as from a function without `return`; return one number per structure"),
    ],
)
def test_what_it_returns(name: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines show where the function begins."""
    error, frame, code = told(capsys, "check-reward", f"mine.py:{name}", "--molecules")
    assert error.startswith(f"error: reward component {name}: {said}")
    assert f'mine.py", line {line_of(f"def {name}(")}, in {name}' in frame
    assert code.strip() == f"def {name}(structures):"


NOT_THERE = ["model.backbone=nowhere"]
"""Were it looked for, that would be the error."""


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            component("mine.py:score", scal=2.0),
            "reward.components: mine.py:score takes no scal; did you mean scale? it takes scale, weight, normalize_fn, "
            "eps, clip_range",
        ),
        (
            component("mine.py:Handing", taget=2.0),
            "reward.components: mine.py:Handing takes no taget; did you mean target? it takes target, weight, "
            "normalize_fn, eps, clip_range",
        ),
        (
            component("mine.py:Plain", target=1, wieght=2.0),
            "mine.py:Plain takes no wieght; did you mean weight? it takes target, weight",
        ),
        (component("mine.py:Plain"), "mine.py:Plain needs target, without which it cannot be called: give a value"),
        (
            component("atomrl.rewards.components.EnergyReward", florr=0),
            "atomrl.rewards.components.EnergyReward takes no florr; did you mean floor? it takes only, floor, ",
        ),
        (component("xtb", timeout=3), "reward.components: xtb takes no timeout: its options are keys of `reward`"),
        (
            "train.objective={_target_: mine.py:Plain, targt: 1}",
            "train.objective: mine.py:Plain takes no targt; did you mean target?",
        ),
        (
            "reward.force_field={_target_: bonds.py:Bonds, lenght: 1}",
            "reward.force_field: bonds.py:Bonds takes no lenght; did you mean length? it takes length, only",
        ),
        (
            "reward.force_field={_target_: xtb, batch_size: 8}",
            "reward.force_field: xtb takes no batch_size; it takes no arguments",
        ),
    ],
)
def test_arguments_are_compared_with_the_signature_before_anything_loads(
    word: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    physics = ["reward.type=ase", "reward.energy_atom_refs=null"] if "force_field={_target_: bonds" in word else []
    physics = ["reward.type=xtb"] if "force_field={_target_: xtb" in word else physics
    error = told(capsys, *words(*NOT_THERE, *physics, word))[0]
    assert said in error


def test_what_options_are_for_nobody_knows_beforehand(folder: Path) -> None:
    """Where `**options` are looked into, nothing is refused by the signature."""
    assert CustomReward("mine.py:Popping", target=3).name == "popping"
    with pytest.raises(UserError, match=r"mine\.py:Popping\(taget\) raised TypeError: .* 'taget'") as caught:
        CustomReward("mine.py:Popping", taget=3)
    assert f"line {line_of('super().__init__(**options)') + 9}" in caught.value.notes[0]


def test_a_compute_that_cannot_be_called(folder: Path) -> None:
    with pytest.raises(UserError, match=r"mine\.py:Narrow\.compute\(structures\) does not take what it is called with"):
        CustomReward("mine.py:Narrow")


@pytest.mark.parametrize(
    ("word", "said", "frame"),
    [
        (
            component("mine.py:Refuses", target=1),
            "error: reward.components: mine.py:Refuses(target) raised KeyError: 1",
            f'mine.py", line {line_of("self.table = {}")}, in __init__',
        ),
        (
            component("broken.py:f"),
            "error: broken.py, imported for broken.py:f, raised SyntaxError: invalid syntax",
            'broken.py", line 2',
        ),
        (
            component("named.py:f"),
            "error: named.py, imported for named.py:f, raised NameError: name 'mat' is not defined",
            'named.py", line 3, in <module>',
        ),
        (
            component("lacking.py:f"),
            "error: lacking.py imports not_installed_anywhere, which is not installed",
            'lacking.py", line 2, in <module>',
        ),
    ],
)
def test_while_it_is_made_or_imported(
    word: str, said: str, frame: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error, place, *_ = told(capsys, *words(word))
    assert error.startswith(said)
    assert frame in place


def test_in_a_worker_on_every_sample(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that scores nothing from its first iteration on stops."""
    monkeypatch.setattr(molecules, "check_geometries", lambda structures, elements: [None] * len(structures))
    calculator = "reward.force_field={_target_: bonds.py:Bonds}"
    [error] = told(capsys, *words("reward.type=ase", calculator, "reward.energy_atom_refs=null", "reward.timeout=100"))
    assert error.startswith("error: none of the 6 samples of the first iteration could be scored: 6 ")
    assert error.endswith(f"ended in an exception, the first in LookupError: no parameters ({PLACE})")


def test_in_a_worker_on_some_samples(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """These alone have no score, and a warning shows the line, once."""
    structures, _ = example_molecules()
    sizes = structures.sizes.tolist()
    field = build_force_field({"_target_": "bonds.py:Bonds", "only": max(sizes)}, {"workers": 1, "timeout": 100.0})
    try:
        results = field.evaluate(structures)
        field.evaluate(structures)
    finally:
        field.close()
    assert [result.reason is None for result in results] == [size == max(sizes) for size in sizes]
    failed = sum(size < max(sizes) for size in sizes)
    [warning] = [record.getMessage() for record in caplog.records if record.name.startswith("atomrl")]
    assert warning.startswith(f"bonds.py:Bonds raised an exception on {failed} of {len(sizes)} molecules")
    assert warning.endswith(f"the first: LookupError: no parameters ({PLACE})")


def test_a_force_field_of_a_class_of_the_users(folder: Path) -> None:
    structures, _ = example_molecules()
    field = build_force_field({"_target_": "mine.py:Field"}, {"workers": 1, "timeout": 60.0})
    with pytest.raises(
        UserCodeError, match=r"mine\.py:Field, called on \d+ structures, raised KeyError: 'key'"
    ) as caught:
        field.evaluate(structures)
    assert "in evaluate" in caught.value.notes[0]
    good = [Evaluation(0.0, torch.zeros(size, 3).numpy(), None) for size in structures.sizes.tolist()]
    for answer, said in (
        (None, "got NoneType"),
        (good[1:], f"a list of {len(good)} results"),
        ([0.0] * len(good), "has no energy and no forces and no reason"),
        ([Evaluation(0.0, torch.zeros(99, 3).numpy(), None)] * len(good), r"have the shape \(99, 3\)"),
        ([replace(one, energy=np.zeros(1)) for one in good], r"structure 0 the energy is of shape \(1,\); return one"),
        ([replace(one, energy=None) for one in good], "structure 0 the energy is None; return one number, eV"),
        ([replace(one, forces=torch.from_numpy(one.forces)) for one in good], "the forces are Tensor; return a NumPy"),
    ):
        with pytest.raises(UserError, match=said):
            OwnForceField(field.inner.__class__(answer), "mine.py:Field").evaluate(structures)
    field.inner.elements = ["H", "C"]
    with pytest.raises(UserError, match=r"its elements are \['H', 'C'\]; give atomic numbers"):
        OwnForceField(field.inner, "mine.py:Field")


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


def test_what_is_no_mistake_of_the_users_passes() -> None:
    """A mistake of the package, and the end that another process asks for."""
    with pytest.raises(ModuleNotFoundError):
        made(load_task, "a task of the package", {"task": "nothing_there:f"}, "key")
    with pytest.raises(RankError), calling("the reward component x", divmod):
        raise RankError("rank 1 ended the run")
