"""Rewards that live in the user's own files."""

import importlib
import os
import sys
from collections.abc import Callable
from functools import partial
from operator import methodcaller
from pathlib import Path

import numpy as np
import pytest
import torch

from atomrl.config.molecules import MoleculeReward
from atomrl.domains.molecule_reward import own_components
from atomrl.library.given import Given
from atomrl.rewards.base import unique_names
from atomrl.rewards.components import CustomReward, RewardComponent, Scores, as_scores
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.structures.examples import example_molecules
from atomrl.structures.listing import MOLECULES
from atomrl.user_code.load import load_object
from atomrl.util.errors import UserCodeError, UserError

FILE = """
import torch
from atomrl.rewards.components import RewardComponent

SCALE = 2.0

class AtomCount(RewardComponent):
    required_metrics = ("unique",)

    def __init__(self, scale=1.0, **options):
        super().__init__(**options)
        self.scale = scale

    def compute(self, gen_structures, **kwargs):
        return self.scale * torch.tensor([float(len(s)) for s in gen_structures])

def count(structures, scale=1.0):
    return [scale * len(s) for s in structures]

class Spread:
    compares = True
    failed_value = -1.0
    required_metrics = ("unique",)

    def compute(self, gen_structures, **kwargs):
        return [float(len(s)) for s in gen_structures]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def test_class_and_function_from_a_file(file: Path) -> None:
    by_class = CustomReward(f"{file}:AtomCount", weight=3.0, scale=2.0)
    by_function = CustomReward(f"{file}:count", scale=2.0)
    assert (by_class.name, by_class.metrics, by_class.weight) == ("atom_count", ("unique",), 3.0)
    assert (by_function.name, by_function.metrics) == ("count", ())
    structures = ["ab", "abc"]
    assert by_class.compute(structures).tolist() == by_function.compute(structures).tolist() == [4, 6]
    assert by_class(structures).tolist() == [12, 18]


def test_a_class_that_is_no_component_says_what_it_reads_and_compares(file: Path) -> None:
    """Of molecules a component that compares gets all samples of an iteration; it got those of a bucket."""
    found = load_object(f"{file}:Spread")
    for source in (f"{file}:Spread", found, found()):
        component = CustomReward(source)
        assert (component.metrics, component.failed_value, component.compares) == (("unique",), -1.0, True)
    scopes = {}
    for name in ("Spread", "count"):
        reward = own_components(MoleculeReward(components=[{"_target_": f"{file}:{name}"}]))
        assert isinstance(reward, ReinforceReward)
        scopes[name] = reward.scope
        reward.close()
    assert scopes == {"Spread": "per_batch", "count": "per_sample"}


def test_dotted_path_is_also_looked_for_here(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    path = list(sys.path)
    assert CustomReward("mine.count").compute(["a"]).tolist() == [1]
    assert CustomReward("mine:AtomCount").compute(["a"]).tolist() == [1]
    assert sys.path == path


def test_a_subclass_needs_no_source() -> None:
    class MyReward(CustomReward):
        def compute(self, gen_structures: list, **kwargs: object) -> torch.Tensor:
            return torch.zeros(len(gen_structures))

    assert MyReward(weight=2.0, normalize_fn="norm")(["a", "b"]).tolist() == [0, 0]
    assert MyReward().name == "my"
    with pytest.raises(UserError, match="source"):
        CustomReward()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere.py:f", "no file nowhere.py"),
        ("mine.py:missing", "holds no missing; it holds"),
        ("pathlib.Path", "the class Path is neither a class with compute nor a function"),
        ("mine.py:SCALE", "neither a class with compute nor a function"),
        ("no_such_package.reward", "no module no_such_package"),
        ("reward", "path/to/file.py:name"),
        ("broken.py:f", r"broken\.py, imported for broken\.py:f, raised SyntaxError: .*"),
        ("broken.f", r"broken, imported for broken\.f, raised SyntaxError: .*"),
        ("needs.py:f", "needs.py imports not_installed_anywhere, which is not installed"),
        ("needs.f", "needs imports not_installed_anywhere, which is not installed"),
        ("itself.py:f", "itself.py imports itself_missing, which is not installed"),
        ("folder/beside.py:f", "folder/beside.py imports helper, which lies beside it, .* PYTHONPATH=/.*/folder"),
        ("wrong.py:f", "wrong.py cannot be imported: cannot import name 'nothing' from 'math'"),
        ("wrong.f", "wrong cannot be imported: cannot import name 'nothing' from 'math'"),
        ("latin.py:f", "latin.py.*utf-8"),
        ("ends.py:f", r"ends.py calls sys.exit\(0\): raise an exception instead"),
        ("ends.f", r"ends calls sys.exit\(0\)"),
        (".mine.count", "is named path/to/file.py:name"),
        ("folder/mine.count", "is named path/to/file.py:name"),
        ("mine.AtomCont", r"mine holds no AtomCont; did you mean AtomCount\?$"),
        ("mine.py:missing", "mine.py holds no missing; it holds AtomCount, count, Spread$"),
        ("needs_nothing.py:f", "it holds no class or function"),
        ("atomrl.rewards.components.EnergyRewrd", "did you mean EnergyReward"),
        ("atomrl.rewards.components.CustomReward", "which has no compute of its own"),
    ],
)
def test_bad_sources(file: Path, source: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    Path("broken.py").write_text("def f(:\n")
    Path("needs.py").write_text("import not_installed_anywhere\n")
    Path("itself.py").write_text("import itself_missing\n")
    Path("folder").mkdir()
    Path("folder/beside.py").write_text("import helper\n")
    Path("folder/helper.py").write_text("SCALE = 2\n")
    Path("wrong.py").write_text("from math import nothing\n")
    Path("latin.py").write_bytes("name = 'é'\n".encode("latin-1"))
    Path("ends.py").write_text("import sys\nsys.exit(0)\n")
    Path("needs_nothing.py").write_text("import re\nfrom pathlib import Path\nSCALE = 2\n")
    for name in ("broken", "needs", "wrong", "ends", "mine"):
        monkeypatch.delitem(sys.modules, name, raising=False)  # of another folder
    importlib.invalidate_caches()
    with pytest.raises(UserError, match=words) as caught:
        CustomReward(source)
    assert "\n" not in str(caught.value)


def test_an_answer_that_is_no_array() -> None:
    with pytest.raises(UserError, match="words: got list"):
        CustomReward(words).compute(["a"])


@pytest.mark.parametrize("answer", [np.ones(1, complex), torch.ones(1, dtype=torch.complex64), [1j]])
def test_complex_numbers(answer: object) -> None:
    for given in (answer, Scores(answer, (None,))):
        with pytest.raises(UserError, match="mine: got complex numbers"):
            as_scores(given, "mine")


@pytest.mark.parametrize("numbers", [[3.0, 1.0], [3, 1], [True, True]])
def test_what_a_masked_array_hides_is_no_score(numbers: list) -> None:
    """The hidden number was paid."""
    for mask, said in (([True, False], ("masked", None)), (False, (None, None)), (True, ("masked", "masked"))):
        found = as_scores(np.ma.array(numbers, mask=mask), "mine")
        assert isinstance(found, Scores)
        assert found.reasons == said
        assert found.values.isnan().tolist() == [reason is not None for reason in said]
    found = as_scores(Scores(np.ma.array([3.0, 1.0], mask=[True, False]), ("odd", None)), "mine")
    assert (found.values.isnan().tolist(), found.reasons) == ([True, False], ("odd", None))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (torch.ones(2).to_sparse(), "a sparse tensor"),
        (torch.ones(2, device="meta"), "a tensor without data"),
    ],
)
def test_a_tensor_that_is_not_dense(answer: torch.Tensor, said: str) -> None:
    for given in (answer, Scores(answer, (None, None))):
        with pytest.raises(UserError, match=f"mine: got {said}; return a dense one"):
            as_scores(given, "mine")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (np.frompyfunc(lambda molecule: 1.0, 1, 1), "raised ValueError: setting an array element with a sequence"),
        (str.count, "count, called on 16 samples, raised TypeError: descriptor 'count'"),
        (partial(str.count), "count, called on 16 samples, raised TypeError: descriptor 'count'"),
        (methodcaller("get_volume"), "methodcaller, .* raised AttributeError: 'list' object has no attribute"),
    ],
)
def test_a_function_in_c_that_takes_something_else(function: Callable, said: str) -> None:
    reward = ReinforceReward([CustomReward(function)], listing=MOLECULES)
    with pytest.raises(UserCodeError, match=said) as caught:
        reward.score(*example_molecules())
    assert "\n" not in str(caught.value)


def test_a_number_that_is_too_large() -> None:
    with pytest.raises(UserError, match=r"mine: got list, which is not an array of numbers \(int too large"):
        as_scores([10**400], "mine")


def test_a_list_of_a_networks_answers() -> None:
    answers = torch.nn.Linear(1, 1)(torch.ones(2, 1))[:, 0]
    found = as_scores(list(answers), "mine")
    assert isinstance(found, torch.Tensor)
    assert found.tolist() == answers.tolist()


def test_a_list_of_lists_of_different_lengths() -> None:
    with pytest.raises(UserError, match=r"mine: got list, which is not an array of numbers \(setting an array element"):
        as_scores([[1.0], [1.0, 2.0]], "mine")


@pytest.mark.parametrize("reasons", [None, "bad", (None, ValueError("x")), [None, ""], (False, True)])
def test_a_reason_is_a_text(reasons: object) -> None:
    with pytest.raises(UserError, match="mine: reasons must be a text or None for each sample, got"):
        as_scores(Scores(torch.tensor([1.0, float("nan")]), reasons), "mine")


def words(structures: list) -> list:
    return ["high" for _ in structures]


def test_a_file_is_read_once(file: Path) -> None:
    assert load_object(f"{file}:AtomCount") is load_object(f"{file}:AtomCount")


def test_a_corrected_file_is_read_anew_by_the_next_call(file: Path) -> None:
    """Not in between: a training goes on with the code that it began with."""
    own, kept = file.with_name("corrected.py"), f"{file}:AtomCount"
    own.write_text("value = 1\n")
    with Given().handed_over():
        assert load_object(f"{own}:value") == 1
        other = load_object(kept)
        own.write_text("value = 'corrected'\n")
        os.utime(own, ns=(0, 0))
        assert load_object(f"{own}:value") == 1
    with Given().handed_over():
        assert (load_object(f"{own}:value"), load_object(kept)) == ("corrected", other)
    own.unlink()
    with Given().handed_over(), pytest.raises(UserError, match="no file"):
        load_object(f"{own}:value")


@pytest.mark.parametrize("code", ["raise KeyboardInterrupt", "raise OSError('no data')", "def count(:"])
def test_half_a_module_is_forgotten(code: str, file: Path) -> None:
    half = file.with_name("half.py")
    half.write_text(f"count = 1\n{code}\n")
    with pytest.raises((KeyboardInterrupt, OSError, UserError)):
        load_object(f"{half}:count")
    half.write_text("count = 'two'\n")
    assert load_object(f"{half}:count") == "two"


def test_names_of_equal_components_are_numbered() -> None:
    class Same(RewardComponent):
        def compute(self, gen_structures: list, **kwargs: object) -> Scores:
            return Scores(torch.zeros(len(gen_structures)), (None,) * len(gen_structures))

    assert unique_names([Same(), Same(), Same()]) == ("same", "same_#2", "same_#3")


def test_a_wrapped_component_keeps_what_its_failures_are_worth() -> None:
    assert CustomReward("atomrl.rewards.components.EnergyReward").failed_value == -1.0
