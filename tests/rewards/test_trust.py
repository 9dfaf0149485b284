"""A run's configuration names code; loading the run does not run it."""

import importlib
import inspect
import json
import pkgutil
from pathlib import Path

import pytest

from atomrl import rewards
from atomrl.cli import main
from atomrl.rewards.build import build_components
from atomrl.rewards.components import RewardComponent
from atomrl.training.rl_module import RLModule
from atomrl.user_code.trust import BUILT_IN, COMPONENTS, foreign_code
from atomrl.util.errors import UserError

OURS = f"{COMPONENTS}.CreativityReward"
CODE = """
from pathlib import Path
Path("ran").touch()

class Mine:
    def compute(self, gen_structures, **kwargs):
        return [1.0 for _ in gen_structures]

    def predict(self, batch):
        return {}
"""
COMMAND = {"_target_": OURS, "max_distance": {"_target_": "os.system", "command": "touch ran"}}
CUSTOM = {"_target_": f"{COMPONENTS}.CustomReward", "source": "mine.py:Mine"}
OWN = {"_target_": "mine.Mine"}
PREDICTOR = {
    "_target_": "src.rl_module.components.PredictorReward",
    "predictor": {"_target_": "mine.py:Mine"},
    "target_name": "gap",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(CODE)
    return tmp_path


def run(folder: Path, *entries: dict) -> Path:
    """The part of a run that is read before its weights."""
    folder.mkdir()
    (folder / "checkpoint_latest.pth").touch()
    (folder / "config.yaml").write_text(json.dumps({"domain": "crystals", "reward": {"components": entries}}))
    return folder


def test_the_built_in_components_are_all_of_the_package() -> None:
    """Every component in a module of `atomrl.rewards`, but the one that is a way to name other code."""
    found = set()
    for module in pkgutil.iter_modules(rewards.__path__, "atomrl.rewards."):
        for name, kind in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(kind) and issubclass(kind, RewardComponent) and kind.__module__ == module.name:
                found.add(f"{module.name}.{name}")
    abstract = {"RewardComponent", "DiversityReward", "CustomReward"}
    assert {name for name in found if name.rpartition(".")[2] not in abstract} == BUILT_IN


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"_target_": OURS, "weight": 2.0}, []),
        ({"_target_": f"{COMPONENTS}:EnergyReward"}, []),
        ({"_target_": "atomrl.rewards.novelty.NoveltyReward"}, []),
        ({"_target_": "src.rl_module.components.StructureDiversityReward"}, []),
        ({"_target_": "src.rl_module.components:PredictorReward", "predictor": "folder", "target_name": "gap"}, []),
        (COMMAND, ["os.system"]),
        (CUSTOM, [f"{COMPONENTS}.CustomReward", "mine.py:Mine"]),
        (OWN, ["mine.Mine"]),
        (PREDICTOR, ["mine.py:Mine"]),
        ({"_target_": OURS, "options": [{"deep": {"_target_": OURS}}]}, [OURS]),
        ({"_target_": {"_target_": "os.system"}}, ["{'_target_': 'os.system'}"]),
        ({"_target_": f"{OURS}.compute"}, [f"{OURS}.compute"]),
    ],
)
def test_foreign_code(entry: dict, named: list[str]) -> None:
    assert foreign_code([entry, entry]) == named


@pytest.mark.parametrize("entry", [COMMAND, CUSTOM, OWN, PREDICTOR])
def test_loading_and_evaluating_a_run_refuse_its_code(
    entry: dict, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = run(here / "theirs", entry)
    with pytest.raises(UserError, match=f"{foreign_code([entry])[-1]}; add trust_code=True if you know"):
        RLModule.load_from_checkpoint(place, weights_only=False)
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", "--base", "crystal_small", "--trained", str(place)])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert foreign_code([entry])[-1] in error
    assert "--trust-code" in error
    assert error.count("\n") == 1
    assert not Path("ran").exists()


def test_code_that_is_trusted_goes_further(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As far as the weights, which are none."""
    place = run(here / "own", OWN)
    with pytest.raises(UserError, match=r"checkpoint_latest\.pth"):
        RLModule.load_from_checkpoint(place, trust_code=True)
    with pytest.raises(SystemExit):
        main(["evaluate", "--base", "crystal_small", "--trained", str(place), "--trust-code"])
    assert "checkpoint_latest.pth" in capsys.readouterr().err


def test_an_argument_is_an_object_that_predicts_and_nothing_else(here: Path) -> None:
    with pytest.raises(UserError, match=r"os\.system is not a class with predict"):
        build_components([COMMAND])
    assert not Path("ran").exists()
    [component] = build_components([PREDICTOR])
    assert component.predictor.predict(None) == {}
