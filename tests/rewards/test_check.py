"""What `check-reward` reports, and the example that it is shown with."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from atomrl.cli import main
from atomrl.core.records import Prompts, RewardTable, Structures
from atomrl.domains.crystal_judges import CrystalJudges
from atomrl.measures.measure import Metric, SoundSamples
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.rewards.check import example_crystals, load_reward, report
from atomrl.rewards.components import CustomReward
from atomrl.rewards.dummy import DummyReward
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.structures.crystals import check_cells
from atomrl.structures.examples import example_molecules
from atomrl.util.errors import UserError

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_reward.py"


def same(structures: list) -> list[float]:
    return [1.0 for _ in structures]


class Forgetful:
    """Another number each time."""

    scope = "per_batch"

    def __init__(self) -> None:
        self.calls = 0

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        self.calls += 1
        values = self.calls + torch.arange(len(structures), dtype=torch.float64)
        return RewardTable({"calls": values}, (None,) * len(structures))

    def close(self) -> None:
        pass


def test_example_crystals_are_sound() -> None:
    structures, prompts = example_crystals(per_group=8, seed=3)
    assert set(check_cells(structures)) == {None}
    assert len(structures) == len(prompts) == 32
    assert torch.equal(example_crystals(8, 3)[0].positions, structures.positions)


@pytest.mark.parametrize("name", ["AtomicDensity", "atomic_density"])
def test_report_of_the_example(name: str) -> None:
    found = report(load_reward(f"{EXAMPLE}:{name}"), *example_crystals())
    [channel] = found.channels.values()
    assert list(found.channels) == ["atomic_density"]
    assert (channel.shape, channel.finite, channel.flat_groups) == ((16,), 16, 0)
    assert 0.025 < channel.low < channel.high < 0.125  # CsCl has 0.029 atoms/Å^3 unstrained, MgO 0.107
    assert channel.spread > 0
    assert found.seconds_per_sample > 0
    assert found.problems == ()
    assert found.lines()[-1] == "ok"


def test_problems_are_named() -> None:
    flat = report(ReinforceReward([CustomReward(same)]), *example_crystals())
    assert flat.problems == ("channel same: the same value for all samples of every group, so nothing is learned",)
    assert report(Forgetful(), *example_crystals()).problems == ("channel calls is not reproducible",)


def test_failures_are_counted() -> None:
    structures, prompts = example_crystals()
    cell = structures.cell.clone()
    cell[:3] = torch.nan
    broken = Structures(structures.numbers, structures.positions, structures.mask, cell)
    found = report(load_reward(f"{EXAMPLE}:atomic_density"), broken, prompts)
    assert found.reasons == {"nan": 3}
    assert found.channels["atomic_density"].finite == 13
    assert "failed: nan (3 samples)" in found.lines()


def test_a_whole_reward_by_its_path() -> None:
    assert isinstance(load_reward("atomrl.rewards.dummy:DummyReward"), DummyReward)
    load_reward("src.rl_module.components.CreativityReward").close()  # the published name, wherever one is
    with pytest.raises(UserError, match="without arguments"):
        load_reward("atomrl.rewards.force_energy:ForceEnergyReward")


COMPONENT = """
import sys

from atomrl.rewards.components import RewardComponent

class Headless(RewardComponent):
    def __init__(self):
        self.scale_by = 2.0

    def compute(self, gen_structures, **kwargs):
        return [0.0 for _ in gen_structures]

class Wanting(RewardComponent):
    def __init__(self, target, **options):
        super().__init__(**options)

    def compute(self, gen_structures, **kwargs):
        return [0.0 for _ in gen_structures]

class Half:
    scope = "per_batch"

    def score(self, structures, prompts):
        pass

class Above(RewardComponent):
    required_metrics = ("e_above_hull",)

    def compute(self, gen_structures, **kwargs):
        return -kwargs["metrics_obj"]["e_above_hull"].values

class Undeclared(Above):
    required_metrics = ()

class Comma(Above):
    required_metrics = ("e_above_hull")

def ends(structures):
    sys.exit(0)
"""


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("mine.py:Headless", "Headless has no weight"),
        ("mine.py:Wanting", "mine.py:Wanting needs target, without which it cannot be called"),
        ("mine.py:Half", "mine.py:Half has no close"),
        ("mine.py:Undeclared", r"nothing provides the metric e_above_hull \(there are: none\): add it to required"),
        ("mine.py:Comma", r"Comma: its required_metrics are the text 'e_above_hull'; .* \('e_above_hull',\)"),
        ("mine.py:ends", r"the reward component ends calls sys.exit\(0\): raise an exception instead"),
        ("atomrl.rewards.components.RewardComponent", "abstract"),
        ("atomrl.rewards.components.PredictorReward", "PredictorReward needs predictor, target_name"),
        ("atomrl.rewards.components.CustomReward", "CustomReward needs source"),
        ("src.rl_module.components.CustomReward", "CustomReward needs source"),
    ],
)
def test_what_cannot_be_trained_with(
    source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused as a training refuses it, in one line, below which stands the user's own, where it is theirs."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(COMPONENT)
    with pytest.raises(SystemExit) as caught:
        main(["check-reward", source])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    said, *place = error.splitlines()
    assert re.search(words, said)
    assert not place or "mine.py" in place[0]


def test_metrics_are_measured_by_the_judges_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = []

    class Judge:
        names = ("e_above_hull",)

        def measure(self, batch: SoundSamples) -> dict[str, Metric]:
            return {"e_above_hull": Metric(torch.arange(len(batch)) / 10, (None,) * len(batch))}

        def close(self) -> None:
            closed.append(self)

    asked = []
    monkeypatch.setattr(CrystalJudges, "providers", lambda self, names: asked.append((self.vae, names)) or [Judge()])
    (tmp_path / "mine.py").write_text(COMPONENT)
    main(["check-reward", f"{tmp_path}/mine.py:Above"])
    [(vae, names)] = asked
    assert isinstance(vae, CrystalVAE)
    assert names == ("e_above_hull",)
    assert len(closed) == 1
    assert "channel above: shape (16,), 16 of 16 finite, -1.5 to -0" in capsys.readouterr().out


MOLECULAR = """
import torch
from atomrl.rewards.components import RewardComponent

class Fresh(RewardComponent):
    required_metrics = ("novel",)

    def compute(self, gen_structures, **kwargs):
        novel = kwargs["metrics_obj"]["novel"].values
        return 100 * novel + torch.tensor([atoms.positions[:, 0].max() for atoms in gen_structures])

class Above(Fresh):
    required_metrics = ("e_above_hull",)
"""


BESIDE = """
import numpy as np


def beside(molecules):
    widths = np.array([molecule.positions.std() for molecule in molecules])
    return widths - widths.mean()


class Beside:
    compares = True

    def compute(self, gen_structures, **kwargs):
        return beside(gen_structures)


def width(molecules):
    return [molecule.positions.std() for molecule in molecules]
"""


def test_a_component_of_molecules_that_depends_on_others_must_say_so(tmp_path: Path) -> None:
    """A training gives it a micro-batch at a time."""
    (tmp_path / "beside.py").write_text(BESIDE)
    found = {}
    for name in ("beside", "Beside", "width"):
        reward = load_reward(f"{tmp_path}/beside.py:{name}", molecules=True)
        found[name] = report(reward, *example_molecules())
    assert [one.scope for one in found.values()] == ["per_sample", "per_batch", "per_sample"]
    assert found["Beside"].problems == found["width"].problems == ()
    [problem] = found["beside"].problems
    assert problem.startswith("channel beside depends on the samples beside it, of which a per_sample reward sees")


def test_metrics_of_molecules_are_measured_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fresh.py").write_text(MOLECULAR)
    main(["check-reward", f"{tmp_path}/fresh.py:Fresh", "--molecules"])
    assert capsys.readouterr().out.splitlines()[-1] == "ok"
    with pytest.raises(SystemExit):
        main(["check-reward", f"{tmp_path}/fresh.py:Above", "--molecules"])
    assert "nothing measures the metric e_above_hull of molecules: choose from " in capsys.readouterr().err


def test_example_runs(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ok"
