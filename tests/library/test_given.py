"""What a call gives beside its configuration becomes names that a configuration can hold."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones

import atomrl
from atomrl.config import load_config, to_yaml
from atomrl.config.objects import call_with_objects
from atomrl.core.objectives.fed_grpo import FedGRPO
from atomrl.force_fields.build import build_force_field
from atomrl.library.given import Given
from atomrl.library.model_evaluation import ModelEvaluation
from atomrl.rewards.base import RewardComponent
from atomrl.rewards.build import build_components
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.rewards.whole import whole_reward
from atomrl.structures.examples import example_molecules
from atomrl.structures.listing import MOLECULES
from atomrl.user_code.given import handed, handed_over, importable_name
from atomrl.user_code.load import load_object
from atomrl.user_code.trust import require_trust
from atomrl.util.errors import UserError


def heavy(molecules: "list[Atoms]", above: int = 1) -> list[float]:
    return [float((molecule.numbers > above).sum()) for molecule in molecules]


class Constant(RewardComponent):
    def compute(self, gen_structures, **kwargs):
        return torch.zeros(len(gen_structures))


def components(reward: object) -> tuple[list, Given]:
    given = Given.of(reward=reward)
    return given.values["reward.components"], given


def test_a_function_of_a_module_is_named_by_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    entries, given = components(heavy)
    assert entries == [{"_target_": "test_given.py:heavy"}]
    assert given.objects == {"test_given.py:heavy": heavy}
    monkeypatch.chdir(tmp_path)
    assert importable_name(heavy) == f"{Path(__file__)}:heavy"
    assert importable_name(FedGRPO) == "atomrl.core.objectives.fed_grpo.FedGRPO"


def test_a_function_of_a_package_is_named_by_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its `__init__.py` alone, read as a file, could not import from beside it."""
    (tmp_path / "own_package").mkdir()
    text = "from .numbers_ import NUMBER\n\n\ndef same(structures):\n    return [NUMBER for _ in structures]\n"
    (tmp_path / "own_package" / "__init__.py").write_text(text)
    (tmp_path / "own_package" / "numbers_.py").write_text("NUMBER = 3.0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    same = importlib.import_module("own_package").same
    [entry], _ = components(same)
    assert entry == {"_target_": "own_package.same"}
    assert load_object(entry["_target_"]) is same


def test_what_nothing_can_import_is_a_python_object() -> None:
    def local(molecules):
        return [0.0 for _ in molecules]

    entries, given = components([local, lambda molecules: [1.0] * len(molecules), Constant(), Constant()])
    names = [entry["_target_"] for entry in entries]
    assert names == ["<python>:local", "<python>:lambda", "<python>:Constant", "<python>:Constant_2"]
    with pytest.raises(UserError, match=r"local was an object of a Python program, which no file holds: give it again"):
        load_object("<python>:local")
    with given.handed_over():
        assert load_object("<python>:local") is local
        require_trust(entries, "somewhere", "--trust-code")  # what is given is one's own
        assert [part.name for part in build_components(entries)] == ["local", "lambda", "constant", "constant"]
    with pytest.raises(UserError, match="names code that is not part of atomrl"):
        require_trust(entries, "somewhere", "--trust-code")


def test_components_with_weights_and_options() -> None:
    entries, given = components({heavy: 2.0, partial(heavy, above=6): 0.5, "xtb": 1, Constant(weight=3.0): 4})
    assert [entry.get("weight") for entry in entries] == [2.0, 0.5, None, 4.0]
    assert entries[1]["above"] == 6
    assert entries[2] == {"_target_": "xtb"}
    with given.handed_over():
        parts = build_components([entry for entry in entries if entry["_target_"] != "xtb"])
    assert [part.weight for part in parts] == [2.0, 0.5, 4.0]
    assert components({"_target_": heavy, "above": 6})[0][0]["above"] == 6


def scaled(molecules: "list[Atoms]", eps: float = 1.0) -> list[float]:
    return [eps for _ in molecules]


def test_a_partial_keeps_its_arguments() -> None:
    """Those of a function that are called like a component's options; and a class of a notebook has options too."""

    class Wanted(RewardComponent):
        def __init__(self, target: float, **options) -> None:
            super().__init__(**options)
            self.target = target

        def compute(self, gen_structures, **kwargs):
            return torch.full((len(gen_structures),), self.target)

    entries, given = components([partial(scaled, eps=5.0), partial(Wanted, target=2.0, weight=3.0)])
    assert entries[0] == {"_target_": "<python>:scaled"}
    with given.handed_over():
        reward = ReinforceReward(build_components(entries), listing=MOLECULES, totals=False)
    structures, prompts = example_molecules()
    channels = reward.score(structures, prompts).channels
    assert (set(channels["scaled"].tolist()), set(channels["wanted"].tolist())) == ({5.0}, {2.0})
    assert reward.weights["wanted"] == 3
    with pytest.raises(UserError, match=r"arguments of this partial, .*: give an object, Wanted\(\.\.\.\)"):
        components(partial(Wanted, 2.0))
    with handed_over({"mine:scaled": scaled}), pytest.raises(UserError, match="has a parameter eps of its own"):
        build_components([{"_target_": "mine:scaled", "eps": 5.0}])


@pytest.mark.parametrize("way", [list, lambda things: {things[1]: 2.0}, lambda things: things[1]])
def test_the_call_that_goes_on_gives_all_that_the_run_was_given(way) -> None:
    """Weights and names beside an object are not lost: what is printed can be typed."""

    def local(molecules: list[Atoms]) -> list[float]:
        return [0.0 for _ in molecules]

    given = Given.of(reward=way(["xtb", local]))
    call = call_with_objects("resume", Path("my run"), load_config("demo", further=given.put_into), "seed=1")
    assert call.startswith("atomrl.resume('my run', ['seed=1'], reward=")
    again = SimpleNamespace(resume=lambda run, overrides, reward: Given.of(reward=reward))
    assert eval(call, {"atomrl": again, "local": local}).values == given.values


def test_a_new_object_is_not_an_old_one_of_its_name(tmp_path: Path) -> None:
    def score(molecules: list[Atoms]) -> list[float]:
        return [0.0 for _ in molecules]

    old = score

    def score(molecules: list[Atoms]) -> list[float]:
        return [1.0 for _ in molecules]

    (tmp_path / "config.yaml").touch()
    given = Given.of(reward=score, policy=atomrl.Run(tmp_path, reward=old))
    assert given.objects["<python>:score"] is score


def test_a_given_reward_takes_the_place_of_the_configurations() -> None:
    """Weights of channels that it does not have are the defaults, unless they were typed."""
    config = load_config("demo", ["seed=3"], further=Given.of(reward=heavy).put_into)
    assert config.reward.built_in is None
    assert [entry["_target_"].rpartition(":")[2] for entry in config.reward.own] == ["heavy"]
    assert config.train.stability_adv_weight == 0
    beside = load_config("demo", further=Given.of(reward=["xtb", heavy]).put_into)
    assert (beside.reward.built_in, beside.train.stability_adv_weight) == ("xtb", 1.0)
    with pytest.raises(UserError, match=r"train\.stability_adv_weight=2\.0, but reward\.components has no"):
        load_config("demo", ["train.stability_adv_weight=2.0"], further=Given.of(reward=heavy).put_into)
    assert load_config("demo", further=Given.of(reward="dummy").put_into).reward.built_in == "dummy"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"reward": heavy}, "reward.components.0.weight=2"),
        ({"objective": "grpo"}, "+train.objective._target_=mine.py:Mine"),
        ({"reward": "ase", "force_field": LennardJones}, "reward.force_field.sigma=2"),
    ],
)
def test_a_word_about_what_is_given_would_change_nothing(arguments: dict, word: str) -> None:
    with pytest.raises(UserError, match="is given twice, as an override and as an argument"):
        load_config("demo", [word], further=Given.of(**arguments).put_into)


def test_an_objective_and_a_policy_by_name() -> None:
    given = Given.of(objective="fed_grpo", policy="edm_qm9_alpha")
    config = load_config("fed_grpo_config", further=given.put_into)
    assert (config.train.objective, config.model.backbone) == ("fed_grpo", "edm_qm9_alpha")
    with pytest.raises(UserError, match=r"train\.objective is given twice, as an override and as an argument"):
        load_config("demo", ["train.objective=grpo"], further=given.put_into)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reward": 5}, "reward=5: give a function of structures, a reward component, a Reward, a name"),
        ({"reward": []}, "reward=[] is empty"),
        ({"reward": {heavy: "much"}}, "the weight of heavy is 'much'; give {component: number}"),
        ({"reward": {"xtb": 2}}, "xtb has the weights train.force_adv_weight"),
        ({"policy": 3}, "policy=3 has no prior, transitions"),
        ({"policy": FedGRPO}, "policy=FedGRPO is a class: give an object of it"),
        ({"objective": 3}, "objective=3: give a name, an objective or its class"),
        ({"force_field": 3}, "force_field=3: give a name, a calculator of ASE"),
    ],
)
def test_what_cannot_be_given(arguments: dict, message: str) -> None:
    """One line, before anything loads."""
    with pytest.raises(UserError) as caught:
        atomrl.train("demo", **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").touch()
    (tmp_path / "mine" / "metrics.jsonl").write_text('{"iteration": 0}\n')
    monkeypatch.chdir(tmp_path)
    run = atomrl.Run("mine")
    assert (run.folder, run.iterations) == (Path("mine"), 1)
    monkeypatch.chdir(tmp_path.parent)
    assert (run.folder, run.iterations) == (tmp_path / "mine", 1)


def test_mistakes_in_words_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown configuration key train\.learning_rat: did you mean learning_rate"):
        atomrl.train("demo", ["train.learning_rat=1"], reward=heavy)
    with pytest.raises(UserError, match="no part of the reward asks a force field"):
        atomrl.train("demo", reward=heavy, force_field=LennardJones)
    with pytest.raises(UserError, match="no run in"):
        atomrl.Run(tmp_path)
    with pytest.raises(UserError, match="no backbone at"):
        atomrl.load("nothing_here")


@pytest.mark.parametrize(
    "call",
    [
        partial(atomrl.load_config, "demo"),
        partial(atomrl.train, "demo"),
        partial(atomrl.resume, "nowhere"),
        partial(atomrl.load, "edm_qm9_small"),
        lambda overrides: atomrl.sample("edm_qm9_small", 1, overrides=overrides),
        lambda overrides: atomrl.evaluate("edm_qm9_small", overrides=overrides),
        lambda overrides: atomrl.evaluate_structures("nothing.xyz", "table", overrides=overrides),
    ],
)
def test_overrides_are_a_list(call: Callable[[object], object]) -> None:
    """What can be read once only would be read by the first who looks, and change nothing."""
    for wrong in ((word for word in ["seed=5"]), "seed=5", {"seed": 5}, ["seed=5", 3]):
        with pytest.raises(UserError, match=r"overrides must be a list of key=value, e\.g\. \['seed=1'"):
            call(wrong)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"count": 1e3}, r"-n 1000\.0: must be a whole number"),
        ({"time_step": 50.0}, r"--time-step 50\.0: must be a whole number"),
        ({"seed": "one"}, "--seed 'one': must be a whole number"),
        ({"sizes": 9}, "sizes=9: give a list of numbers of atoms"),
        ({"sizes": (size for size in [9])}, "sizes=<generator .*: give a list of numbers of atoms"),
        ({"sizes": [9.5]}, r"sizes=\[9\.5\]: give a list of numbers of atoms"),
    ],
)
def test_numbers_of_samples_are_whole(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        atomrl.sample("edm_qm9_small", **options)


def test_what_is_compared_may_be_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its objects are handed over too; the command says its folder."""
    (tmp_path / "config.yaml").touch()
    seen = []
    monkeypatch.setattr(ModelEvaluation, "report", lambda asked, *_: seen.append((asked.base, {**handed()})))
    atomrl.evaluate("edm_qm9_small", base=atomrl.Run(tmp_path, reward=heavy))
    [(base, objects)] = seen
    assert (base, list(objects.values())) == (tmp_path, [heavy])
    with pytest.raises(UserError, match=r"int is loaded already: give atomrl\.evaluate a Run"):
        atomrl.evaluate("edm_qm9_small", base=5)


def test_a_run_is_evaluated_with_what_it_was_trained_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reward that is given and is another one would not be asked, and the best be chosen by the run's."""
    (tmp_path / "config.yaml").write_text(to_yaml(load_config("demo", further=Given.of(reward=heavy).put_into)))
    (tmp_path / "checkpoint_latest.pth").touch()
    seen = []
    monkeypatch.setattr(ModelEvaluation, "report", lambda *_: seen.append(_))
    for other in ("xtb", scaled, {heavy: 2.0}):
        with pytest.raises(UserError, match=r"trained with, but something else was given: reward\."):
            atomrl.evaluate(atomrl.Run(tmp_path, reward=other))
    atomrl.evaluate(atomrl.Run(tmp_path, reward=heavy))
    atomrl.evaluate(atomrl.Run(tmp_path))
    assert len(seen) == 2


def test_what_is_no_configuration() -> None:
    for wrong in (Path("mine.yaml"), {"seed": 1}):
        with pytest.raises(UserError, match="config must be the name of a YAML"):
            atomrl.train(wrong)


def test_a_calculator_of_a_notebook_goes_to_the_workers() -> None:
    """One that is made already, one whose class no module holds, and what makes one."""

    class Stretched(LennardJones):
        pass

    structures, _ = example_molecules(per_group=1)
    expected = None
    for calculator in (LennardJones(sigma=1.2, rc=12.0), lambda: Stretched(sigma=1.2, rc=12.0)):
        given = Given.of(force_field=calculator)
        with given.handed_over():
            field = build_force_field(given.values["reward.force_field"], {"workers": 1, "timeout": 60.0})
        results = field.evaluate(structures)
        field.close()
        assert [result.reason for result in results] == [None] * len(structures)
        energies = [result.energy for result in results]
        assert expected is None or energies == pytest.approx(expected)
        expected = energies
    named = Given.of(force_field=partial(LennardJones, sigma=1.2)).values["reward.force_field"]
    assert named == {"_target_": "ase.calculators.lj.LennardJones", "sigma": 1.2}


def test_a_force_field_object_stays_open() -> None:
    class Free:
        elements = frozenset({1, 6})
        closed = False

        def evaluate(self, structures):
            return []

        def close(self):
            self.closed = True

    mine = Free()
    with handed_over({"<python>:Free": mine}):
        field = build_force_field({"_target_": "<python>:Free"}, {"workers": 1, "timeout": 1.0})
    assert field.elements == {1, 6}
    field.close()
    assert not mine.closed


def test_importing_the_package_is_quick() -> None:
    code = "import sys, atomrl; print('torch' in sys.modules, 'lightning' in sys.modules, *dir(atomrl))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    torch_there, lightning_there, *names = done.stdout.split()
    assert (torch_there, lightning_there) == ("False", "False")
    assert set(atomrl.__all__) <= set(names)
    assert len(atomrl.__all__) <= 10
    assert all(callable(getattr(atomrl, name)) for name in atomrl.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = atomrl.trian


def test_a_sum_of_components_is_given_as_these() -> None:
    entries, given = components(ReinforceReward([Constant()], listing=MOLECULES))
    with given.handed_over(), pytest.raises(UserError, match="ReinforceReward is made of components: give these"):
        whole_reward(entries)
    assert whole_reward([{"_target_": "xtb"}]) is None
