"""What TensorBoard shows of a training, read back from its event files by its own reader."""

import io
import json
import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from atomrl.config import load_config
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.records import RewardTable, Structures
from atomrl.domains import domain_of
from atomrl.export.exporter import Exporter
from atomrl.training.dashboards import Dashboards, as_markdown, histograms
from atomrl.training.drawn import Drawn
from atomrl.training.log_groups import tags
from atomrl.training.run import train
from atomrl.util.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))
from small_backbone import TINY, write

SHOWN = ["log.tensorboard=true", "log.samples_every=2", "validation.every=2", "log.rdkit=true", "reward.workers=1"]
ALL = {"scalars": 0, "images": 0, "histograms": 0, "tensors": 0}


def shown(folder: Path) -> EventAccumulator:
    """All that the event files of a run hold."""
    return EventAccumulator(str(folder / "tensorboard"), size_guidance=ALL).Reload()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four iterations, then continued from its checkpoint after two as if it had been killed."""
    place = tmp_path_factory.mktemp("run")
    words = [*TINY, *SHOWN, f"model.backbone={write(place / 'backbone')}", f"save_path={place / 'run'}"]
    folder = train(load_config("demo", [*words, "dataloader.epoches=2"]), "demo")
    kept = (folder / "checkpoint_latest.pth").read_bytes()
    train(load_config("demo", [*words, "dataloader.epoches=4", "resume=true"]), "demo")
    (folder / "checkpoint_latest.pth").write_bytes(kept)
    return train(load_config("demo", [*words, "dataloader.epoches=4", "resume=true"]), "demo")


def test_numbers_stand_in_groups(run: Path) -> None:
    """Each number of metrics.jsonl once, under its own name behind its group, and each iteration once."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = shown(run)
    names = found.Tags()["scalars"]
    assert {name.split("/")[0] for name in names} == {"reward", "policy", "samples", "time", "val"}
    short = {name if name.startswith("val/") else name.partition("/")[2]: name for name in names}
    assert len(short) == len(names)
    assert short.keys() == {name for line in lines for name in line} - {"iteration"}
    for name in ("reward/force_reward_mean", "policy/loss", "policy/lr", "samples/molecule_stability"):
        events = found.Scalars(name)
        assert [event.step for event in events] == [0, 1, 2, 3]
        assert [event.value for event in events] == pytest.approx([line[name.partition("/")[2]] for line in lines])
    assert {"time/seconds_rollout", "time/seconds_validation", "val/reward"} <= set(names)


def test_histograms_pictures_and_tables_every_few_iterations(run: Path) -> None:
    found = shown(run)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in ("reward/force", "reward/energy", "policy/advantage", "samples/atoms"):
        events = found.Histograms(f"{name}_histogram")
        assert [event.step for event in events] == [0, 2], name
        assert events[0].histogram_value.num == 6
    atoms = found.Histograms("samples/atoms_histogram")[0].histogram_value
    assert atoms.sum / atoms.num == pytest.approx(lines[0]["mean_atoms"])
    events = found.Images("samples/picture")
    assert [event.step for event in events] == [0, 2]
    picture = np.asarray(Image.open(io.BytesIO(events[0].encoded_image_string)))
    assert picture.shape == (480, 1040, 3)
    assert picture.min() < 128  # something is drawn
    tables = found.Tensors("samples/table/text_summary")
    assert {event.step for event in tables} == {0, 2}  # TensorBoard hides what was done again, but not texts
    head, _, *rows = tables[0].tensor_proto.string_val[0].decode().splitlines()
    assert head.startswith("| sample_id | ")
    assert {"valid", "atoms", "force", "energy", "advantage"} <= set(re.findall(r"\w+", head))
    assert [row.split(" | ")[0] for row in rows] == [f"| `{name:05d}`" for name in range(6)]


class Board:
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.views = []

    def show(self, iteration, numbers, view) -> None:
        self.views.append(view)

    def close(self, failed) -> None:
        self.failed = failed


class Plain(Exporter):
    """Says how many atoms a sample has, alone of the even ones."""

    def about(self, structures):
        return [{} if row % 2 else {"formula": f"X{row}"} for row in range(len(structures))]

    def text(self, structures, ids):
        raise NotImplementedError


def drawn(count: int) -> Drawn:
    prompts = PromptPlan(SizeDistribution({2: 1}), 1, count).prompts(0)
    structures = Structures(torch.ones(count, 2, dtype=torch.int64), torch.rand(count, 2, 3), torch.ones(count, 2) > 0)
    values = torch.arange(count, dtype=torch.float64)
    scores = torch.where(values == 1, torch.nan, values)
    reasons = tuple("scf" if row == 1 else None for row in range(count))
    table = RewardTable({"force": scores}, reasons, filled={"force": values == 2})
    return Drawn(prompts, structures, table, values / 10)


def test_a_picture_that_cannot_be_drawn_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """The table and the histograms come all the same; eight of many samples, evenly over their ids."""

    class NoPictures(type(domain_of(load_config("demo")))):
        def picture(self, structures, captions):
            raise UserError("no matplotlib")

    board = Board()
    boards = Dashboards([board], 1, NoPictures(), Plain())
    with caplog.at_level(logging.WARNING):
        views = [boards._view(drawn(15)) for _ in range(2)]
    assert [record.message for record in caplog.records] == ["no pictures of the samples: no matplotlib"]
    for view in views:
        assert view.picture is None
        assert [row["sample_id"] for row in view.rows] == [f"{name:05d}" for name in range(0, 15, 2)]
        assert view.rows[0] == {"sample_id": "00000", "formula": "X0", "atoms": 2, "force": 0.0, "advantage": 0.0}
        assert "force" not in view.rows[1]  # a rule for failures gave it
    boards.on_exception(None, None, KeyboardInterrupt())
    boards.close()
    assert board.failed


def test_histograms_are_of_what_was_scored() -> None:
    found = histograms(drawn(5))
    assert found["reward/force_histogram"].tolist() == [0, 3, 4]
    assert found["policy/advantage_histogram"].tolist() == [0, 0.1, 0.2, 0.3, 0.4]
    assert found["samples/atoms_histogram"].tolist() == [2] * 5
    assert "reward/force_histogram" not in histograms(drawn(5)[torch.tensor([1])])  # no sample has one


def test_a_table_keeps_smiles_as_they_are() -> None:
    rows = [{"smiles": r"C/C=C\[NH3+]", "reward": 0.123456}, {"valid": False}]
    assert as_markdown(rows).splitlines() == [
        "| smiles | reward | valid |",
        "| --- | --- | --- |",
        r"| `C/C=C\[NH3+]` | 0.1235 |  |",
        "|  |  | False |",
    ]


def test_groups() -> None:
    groups = {"reward": {"reward": 1.0, "seconds_reward_force": 2.0}, "policy": {"lr": 3.0}, "val": {"val/reward": 4.0}}
    assert tags(groups) == {"reward/reward": 1, "time/seconds_reward_force": 2, "policy/lr": 3, "val/reward": 4}
