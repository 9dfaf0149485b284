"""Crystals by the same calls: a function of pymatgen's structures, a whole reward, samples with their cells."""

import sys
from pathlib import Path

import pytest

import atomrl
from atomrl.config import load_config, with_further
from atomrl.core.protocols import Model
from atomrl.core.records import RewardTable
from atomrl.domains import base_model, domain_of
from atomrl.domains.crystals import CrystalDomain
from atomrl.library.given import Given

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from test_train_crystals import TINY, backbone


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    names = ["experiment=prototypes/rl_dng_grpo", f"model.backbone={backbone(tmp_path / 'backbone')}"]
    return [*names, *TINY, "reward.workers=1"]


def density(crystals) -> list[float]:
    return [len(crystal) / crystal.volume for crystal in crystals]


def test_a_function_and_samples(words: list[str]) -> None:
    run = atomrl.train("demo", [*words, "save_path=run"], reward=density)
    assert all(0 < value < 1 for value in run.columns["raw_density"])
    assert None not in run.columns["raw_reward"]
    crystals = run.sample(3, time_step=6)
    assert all(crystal.pbc.all() and crystal.cell.volume > 0 for crystal in crystals)
    assert repr(run).startswith("Run('run'): crystals, 2 of 2 iterations")
    config = load_config("demo", words, further=Given.of(reward=density).put_into)
    assert domain_of(config).rewarded(config) == {"reward_density"}
    dummy = load_config("demo", [*words, "reward.type=dummy"])
    assert with_further(dummy, Given.of(reward=density).put_into).reward.type == "reinforce"


class Small:
    scope = "per_batch"
    weights = {"small": 2.0}  # noqa: RUF012

    def score(self, structures, prompts):
        return RewardTable({"small": -structures.sizes.double()}, (None,) * len(structures))

    def close(self):
        pass


def test_a_whole_reward_and_a_policy(words: list[str], tmp_path: Path) -> None:
    given = Given.of(reward=Small())
    run = atomrl.train("demo", [*words, "save_path=run"], reward=Small())
    assert run.columns["raw_reward"] == [2 * value for value in run.columns["raw_small"]]
    config = load_config("demo", words, further=given.put_into)
    domain = domain_of(config)
    assert isinstance(domain, CrystalDomain)
    with given.handed_over():
        assert domain.rewarded(config) == {"reward_small"}
        model: Model = base_model(config)
        assert domain.channel_weights(config, domain.reward(config, model)) == {"small": 2.0}

    policy = model.policy()
    policy.sizes = {2: 1}
    plain = [word for word in words if not word.startswith("model.backbone")]
    run = atomrl.train("demo", [*plain, "save_path=own"], reward=density, policy=policy)
    assert {len(crystal) for crystal in run.sample(2, time_step=6)} == {2}
    with pytest.raises(atomrl.UserError, match="is not a model of molecules: give one, or a configuration of crystals"):
        atomrl.train("demo", ["reward.workers=1"], reward="dummy", policy=model)
