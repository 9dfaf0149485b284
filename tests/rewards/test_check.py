"""What `check-reward` reports, and the example that it is shown with."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from atomrl.chemistry.crystals import check_cells
from atomrl.errors import UserError
from atomrl.records import Prompts, RewardTable, Structures
from atomrl.rewards.check import example_crystals, load_reward, report
from atomrl.rewards.components import CustomReward
from atomrl.rewards.dummy import DummyReward
from atomrl.rewards.reinforce import ReinforceReward

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
    with pytest.raises(UserError, match="without arguments"):
        load_reward("atomrl.rewards.force_energy:ForceEnergyReward")


def test_example_runs(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ok"
