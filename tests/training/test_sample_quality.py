"""During pre-training, the stability of molecules drawn with the averaged weights stands in the log."""

import csv
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from atomrl.chemistry.bonds import valence
from atomrl.core.records import Structures
from atomrl.data.qm9 import MoleculeSet
from atomrl.networks.edm import EDMConfig
from atomrl.pretraining import edm_run as pretrain_run
from atomrl.pretraining.base import PretrainConfig
from atomrl.pretraining.edm import PretrainEDM
from atomrl.pretraining.edm_run import pretrain_edm

TINY = [
    "model.hidden=8",
    "model.edge_hidden=4",
    "model.layers=1",
    "train.batch_size=2",
    "train.steps=100",  # the log gets a line every 50 steps
    "train.warmup=2",
    "threads=1",
    "val_every=100",
    "val_batches=1",
    "quality_every=50",
    "quality_samples=4",
]


@pytest.fixture(autouse=True)
def _few_molecules(qm9_set: MoleculeSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """QM9 is 300 molecules."""
    monkeypatch.setattr(pretrain_run, "load_qm9", lambda: qm9_set)
    monkeypatch.setattr(pretrain_run, "split", lambda molecules: dict.fromkeys(("train", "validation"), molecules))


def logged(folder: Path, name: str) -> dict[int, float]:
    """A column of the log by step; empty cells left out."""
    with (folder / "log" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {int(row["step"]): float(row[name]) for row in rows if row[name]}


def test_a_run_logs_the_stability_of_its_samples(tmp_path: Path) -> None:
    folder = pretrain_edm([*TINY, f"save_path={tmp_path / 'run'}"])
    for name in ("atom_stability", "molecule_stability"):
        found = logged(folder, name)
        assert list(found) == [49, 99]  # Lightning counts from 0
        assert all(0 <= value <= 1 for value in found.values())
    assert all(math.isfinite(value) for value in logged(folder, "loss").values())


def test_a_short_noise_schedule_has_samples_too() -> None:
    """T = 100 is no walk of a schedule of 5 steps, and would end the run in the middle of a training."""
    shape, logged = EDMConfig(hidden=8, layers=1, diffusion_steps=5), []
    logger = SimpleNamespace(log_metrics=lambda numbers, step: logged.append((numbers.keys(), step)))
    look = pretrain_run.SampleQuality({3: 1}, 50, 2)
    look.on_train_batch_end(SimpleNamespace(global_step=50, loggers=[logger]), PretrainEDM(shape, PretrainConfig()))
    assert logged == [({"atom_stability", "molecule_stability"}, 49)]


def test_the_numbers_are_those_of_what_the_averaged_weights_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qm9_test: Structures
) -> None:
    asked, averaged = [], []

    class Remembered(PretrainEDM):
        def __init__(self, *given) -> None:
            super().__init__(*given)
            averaged.append(self.averaged.module)

    def sample(backbone, plan, device, description) -> Structures:
        asked.append((backbone.network, plan.count, plan.time_step))
        return qm9_test

    monkeypatch.setattr(pretrain_run, "PretrainEDM", Remembered)
    monkeypatch.setattr(pretrain_run, "sample", sample)
    folder = pretrain_edm([*TINY, f"save_path={tmp_path / 'run'}"])
    assert asked == [(averaged[0], 4, 100)] * 2
    verdict = valence(qm9_test.numbers, qm9_test.positions, qm9_test.mask)
    atoms = float(verdict.stable_atoms.sum() / qm9_test.mask.sum())
    molecules = float(verdict.molecule_stable.double().mean())
    assert 0.9 < molecules < atoms < 1  # real molecules, and not all stable by the table
    assert logged(folder, "atom_stability") == pytest.approx({49: atoms, 99: atoms}, abs=1e-6)
    assert logged(folder, "molecule_stability") == pytest.approx({49: molecules, 99: molecules}, abs=1e-6)


def test_each_look_is_logged_whatever_the_log_shows_of_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qm9_test: Structures
) -> None:
    monkeypatch.setattr(pretrain_run, "sample", lambda *_: qm9_test)
    folder = pretrain_edm([*TINY, "quality_every=30", f"save_path={tmp_path / 'run'}"])
    assert list(logged(folder, "atom_stability")) == [29, 59, 89]
    assert list(logged(folder, "loss")) == [49, 99]


def test_no_samples_are_drawn_if_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain_run, "sample", lambda *_: pytest.fail("sampled"))
    pretrain_edm([*TINY, "quality_every=0", f"save_path={tmp_path / 'run'}"])
