"""Pre-training on real QM9: the loss falls, a resumed run equals an uninterrupted one, batches are near in size."""

from pathlib import Path

import numpy as np
import pytest
import torch

from atomrl.checkpoints.backbone import load_backbone
from atomrl.core.schedules import tail_factor
from atomrl.data.batches import SizedBatches
from atomrl.data.qm9 import load_qm9, split
from atomrl.pretraining.base import PretrainConfig, Pretraining
from atomrl.pretraining.edm_run import pretrain_edm
from atomrl.util.errors import UserError

SMALL = [
    "model.hidden=16",
    "model.edge_hidden=8",
    "model.layers=2",
    "train.batch_size=8",
    "train.warmup=2",
    "threads=1",
    "val_every=6",
    "val_batches=1",
    "quality_every=0",
]


def test_a_resumed_pretraining_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    def run(name: str, steps: int) -> dict[str, torch.Tensor]:
        # A constant rate up to the last steps, so that a shorter run is the beginning of a longer one.
        options = [*SMALL, f"save_path={tmp_path / name}", f"train.steps={steps}", "train.decay_steps=1"]
        return load_backbone(str(pretrain_edm(options))).network.state_dict()

    run("cut", 4)
    resumed, straight = run("cut", 9), run("straight", 9)
    assert all(torch.equal(value, straight[name]) for name, value in resumed.items())
    assert {p.name for p in (tmp_path / "cut").iterdir()} >= {"last.ckpt", "model.safetensors", "model.json"}


def test_batches_hold_molecules_of_near_size_and_continue_at_any_step() -> None:
    molecules = split(load_qm9())["validation"]
    stream = iter(SizedBatches(molecules, 64, seed=0))
    batches = [next(stream) for _ in range(40)]
    padding = 1 - np.mean([float(batch.mask.mean()) for batch in batches])
    assert padding < 0.02
    later = next(iter(SizedBatches(molecules, 64, seed=0, first_step=30)))
    assert torch.equal(later.positions, batches[30].positions)
    assert later.step == batches[30].step == 30


@pytest.mark.parametrize(
    ("warmup", "decay", "factors"),
    [
        (2, 2, [0.5, 1, 1, 1, 0.5]),
        (0, 0, [1, 1, 1, 1, 1]),
        (1, 1, [1, 1, 1, 1, 1]),
        (0, 5, [(1 + np.cos(np.pi * step / 5)) / 2 for step in range(5)]),
        (0, 50, [(1 + np.cos(np.pi * step / 5)) / 2 for step in range(5)]),  # a short run does not start half-way down
    ],
)
def test_the_rate_warms_up_stays_and_falls(warmup: int, decay: int, factors: list[float]) -> None:
    found = [tail_factor(step, warmup, total=5, decay=decay) for step in range(5)]
    assert found == pytest.approx(factors)


def test_a_module_without_losses_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="losses"):
        Pretraining(torch.nn.Linear(1, 1), PretrainConfig())


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(UserError, match="stepps"):
        pretrain_edm(["train.stepps=3"])
