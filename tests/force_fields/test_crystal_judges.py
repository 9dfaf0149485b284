"""Where the judges of crystals compute: `device` is obeyed, a GPU or not."""

import pytest
import torch
from crystal_models import small_vae

from atomrl.config.crystals import CrystalReward
from atomrl.domains.crystal_judges import CrystalJudges
from atomrl.force_fields.build import build_crystal_force_field
from atomrl.util.errors import UserError


@pytest.mark.parametrize(
    ("device", "gpu", "where", "workers"),
    [
        ("cpu", True, "cpu", True),
        ("auto", True, "cuda", False),
        ("cuda", True, "cuda", False),
        ("auto", False, "cpu", True),
    ],
)
def test_the_device_is_obeyed(device, gpu, where, workers, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    judges = CrystalJudges(CrystalReward(workers=2), small_vae(), device)
    with judges.physics().force_field as force_field:
        assert force_field.computes.device == where
        assert (force_field.computes.executor is not None) == workers


def test_a_gpu_that_is_not_there_is_no_cpu(monkeypatch):
    """Of `atomrl data reference --device cuda`, for one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="device=cuda, but torch sees no GPU"):
        build_crystal_force_field("chgnet", 1, "cuda")


def test_workers_are_the_cores_of_this_process(monkeypatch):
    monkeypatch.setattr("atomrl.workers.local.cores", lambda: 7)
    assert CrystalJudges(CrystalReward(), small_vae()).workers.count == 7
