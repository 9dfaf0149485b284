"""What is novel is paid for: molecules by RDKit's names, as a component of their own beside xTB."""

import json
import sys
from pathlib import Path

import pytest
import torch
from ase.build import molecule
from molecule_batches import from_atoms

from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.config import load_config
from atomrl.core.prompts import ungrouped
from atomrl.core.records import RewardTable, Structures
from atomrl.measures.molecule_names import MoleculeNamesProvider
from atomrl.rewards.novelty import NoveltyReward
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.structures.listing import MOLECULES
from atomrl.training.run import train

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
from small_backbone import TINY, write

NAMES = ["CH4", "H2O", "CH4", "CH3OH"]


def structures() -> Structures:
    """Methane twice."""
    return from_atoms([molecule(name) for name in NAMES], torch.float32)


def known(*smiles: str) -> TrainingSmiles:
    return TrainingSmiles.of(smiles, len(smiles), "edm-2022", "any")


@pytest.mark.parametrize(
    ("options", "expected"), [({}, [1, 0, 1, 1]), ({"unique": True}, [1, 0, 0, 1]), ({"weight": 2.0}, [1, 0, 1, 1])]
)
def test_a_valid_molecule_that_is_not_known_counts(options: dict[str, float], expected: list[int]) -> None:
    component = NoveltyReward(**options)
    assert component.compares == options.get("unique", False)
    batch = structures()
    provider = MoleculeNamesProvider(training=known("[H]O[H]"))
    reward = ReinforceReward([component], listing=MOLECULES, totals=False, providers=[provider])
    table = reward.score(batch, ungrouped(batch))
    reward.close()
    assert table.channels["novelty"].tolist() == expected
    assert table.reasons == (None,) * 4
    assert reward.weights == {"novelty": options.get("weight", 1.0)}


def test_parts_of_a_rollout_have_the_same_columns() -> None:
    """Also one without a sound sample, which lacked the metrics and ended the run."""
    sound, lost = structures(), structures()
    lost.positions[:] = torch.nan
    provider = MoleculeNamesProvider(training=known("[H]O[H]"))
    reward = ReinforceReward([NoveltyReward()], listing=MOLECULES, totals=False, providers=[provider])
    reward.scope = "per_sample"
    tables = [reward.score(batch, ungrouped(batch)) for batch in (sound, lost)]
    reward.close()
    table = RewardTable.concatenate(tables)
    assert table.diagnostics["novel"][:4].tolist() == [1, 0, 1, 1]
    assert table.diagnostics["novel"][4:].isnan().all()
    assert table.channels["novelty"].tolist() == [1, 0, 1, 1, 0, 0, 0, 0]
    assert table.seconds["novelty"] == tables[0].seconds["novelty"] + tables[1].seconds["novelty"]


def test_a_training_pays_for_it_beside_xtb(tmp_path: Path) -> None:
    write(tmp_path / "backbone")
    components = "[{_target_: xtb},{_target_: atomrl.rewards.novelty.NoveltyReward, weight: 0.5}]"
    words = [*TINY, f"model.backbone={tmp_path / 'backbone'}", f"save_path={tmp_path / 'run'}"]
    folder = train(load_config("demo", [*words, f"reward.components={components}", "dataloader.epoches=1"]), "demo")
    (line,) = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    assert 0 <= line["novelty_reward_mean"] <= 1
    assert {"force_reward_mean", "energy_reward_mean"} <= line.keys()
