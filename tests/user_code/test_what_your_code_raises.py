"""Mistakes in code of the user's: one line says what called it, the next show the line of theirs; exit code 2."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from atomrl.cli import main
from atomrl.config import load_config
from atomrl.force_fields import molecules
from atomrl.force_fields.base import Evaluation
from atomrl.force_fields.build import build_force_field
from atomrl.force_fields.own import OwnForceField
from atomrl.rewards.components import CustomReward
from atomrl.structures.examples import example_molecules
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
        (
            [replace(one, forces=one.forces.astype(complex)) for one in good],
            "the forces are of NumPy's type complex",
        ),
        ([replace(one, forces=one.forces.astype(object)) for one in good], "the forces are of NumPy's type object"),
        ([replace(one, reason="") for one in good], "the reason of structure 0 is ''; give None where there is a"),
        ([replace(one, reason=False) for one in good], "the reason of structure 0 is False; give None"),
        ([replace(one, reason=ValueError("x")) for one in good], r"the reason of structure 0 is ValueError\('x'\)"),
    ):
        with pytest.raises(UserError, match=said):
            OwnForceField(field.inner.__class__(answer), "mine.py:Field").evaluate(structures)
    field.inner.elements = ["H", "C"]
    with pytest.raises(UserError, match=r"its elements are \['H', 'C'\]; give atomic numbers"):
        OwnForceField(field.inner, "mine.py:Field")


def test_what_is_no_mistake_of_the_users_passes() -> None:
    """A mistake of the package, and the end that another process asks for."""
    with pytest.raises(ModuleNotFoundError):
        made(load_task, "a task of the package", {"task": "nothing_there:f"}, "key")
    with pytest.raises(RankError), calling("the reward component x", divmod):
        raise RankError("rank 1 ended the run")
