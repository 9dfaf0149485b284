"""The published names of code and the published batch keys are ours."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import torch

from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.policies.molecule import MoleculePolicy
from elign.protocol import KEYS, DataProto

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "molecules.md").read_text()
TABLE = PAGE.partition("has the published names of classes")[2].partition("\n\n## ")[0]
NAMES = re.findall(r"^\| `(elign[\w.]+)` \| `(atomrl[\w.]+)` \|$", TABLE, flags=re.MULTILINE)


def found(path: str) -> object:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


@pytest.mark.parametrize(("published", "ours"), NAMES)
def test_a_published_name_is_ours(published: str, ours: str) -> None:
    assert found(published) is found(ours)


def test_the_table_has_all_of_the_folder() -> None:
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "elign").rglob("*.py")
        if path.name != "__init__.py"
    }
    assert NAMES
    assert modules == {published.rpartition(".")[0] for published, _ in NAMES} | {"elign.protocol"}
    assert set(KEYS) <= set(re.findall(r"`(\w+)`", TABLE))


def test_a_rollout_by_published_keys() -> None:
    policy = MoleculePolicy(EDMNetwork(EDMConfig(hidden=8, edge_hidden=8, layers=1)))
    prompts = PromptPlan(SizeDistribution({4: 1, 9: 1}), 4, 2, seed=1).prompts(0)
    assert prompts.sizes.unique().numel() == 2
    config = RolloutConfig(5, 4, train_steps=3, mean_at=tuple(range(5)))
    done = rollout(policy, prompts, config)
    batch = DataProto(done)
    assert set(batch) == set(KEYS) - {"context"}
    assert batch["nodesxsample"].tolist() == done.structures.sizes.tolist()
    assert batch["group_index"].tolist() == done.group_ids.tolist()
    assert batch["latents"].shape == batch["next_latents"].shape == batch["mu_old"].shape == (8, 3, 9, 8)
    assert batch["log_prob_old"].shape == (8, 3)
    assert batch["timesteps"].tolist() == pytest.approx([done.walk[index].t for index in done.trained])
    bucket, row = done.buckets[-1], len(done.buckets[-1])
    last = done.trained[-1]
    assert torch.equal(batch["latents"][-row:, -1, : bucket.mask.shape[1]], bucket.latents[last])
    assert torch.equal(batch["next_latents"][-row:, -1, : bucket.mask.shape[1]], bucket.latents[last + 1])
    with pytest.raises(KeyError, match="context: not in this rollout, which has group_index"):
        batch["context"]


def test_what_was_not_recorded_is_no_key() -> None:
    policy = MoleculePolicy(EDMNetwork(EDMConfig(hidden=8, edge_hidden=8, layers=1)))
    prompts = PromptPlan(SizeDistribution({4: 1}), 1, 2).prompts(0)
    assert set(DataProto(rollout(policy, prompts, RolloutConfig(3, train_steps=0)))) == {"group_index", "nodesxsample"}
    assert "mu_old" not in DataProto(rollout(policy, prompts, RolloutConfig(3)))
