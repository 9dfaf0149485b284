"""Crystal backbones survive the disk, and damaged ones say what is wrong."""

import json

import pytest
import torch
from crystal_models import randomized, small_vae

from atomrl.checkpoints.crystal import CrystalBackbone, load_crystal_backbone, save_crystal_backbone
from atomrl.networks.conditions import Condition, ConditionModule
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.policies.crystal import Sampling
from atomrl.util.errors import UserError

CONDITIONS = (
    Condition(name="band_gap", kind="value", mean=0.8, std=1.4),
    Condition(name="system", kind="chemical_system"),
)


def backbone(conditional: bool = True) -> CrystalBackbone:
    torch.manual_seed(0)
    denoiser = randomized(DiT(DiTConfig(hidden=16, depth=1, heads=2, layout="published")))
    conditions = ConditionModule(CONDITIONS, 16, drop_prob=0.2) if conditional else None
    return CrystalBackbone(small_vae(), denoiser, 0.7, {2: 3, 20: 1}, conditions)


@pytest.fixture
def folder(tmp_path):
    save_crystal_backbone(tmp_path, backbone(), {"match_rate": 0.9})
    return tmp_path


def rewrite(folder, **changes):
    card = json.loads((folder / "model.json").read_text())
    card.update(changes)
    (folder / "model.json").write_text(json.dumps({key: value for key, value in card.items() if value is not None}))


@pytest.mark.parametrize("conditional", [True, False])
def test_round_trip(tmp_path, conditional):
    saved = backbone(conditional)
    save_crystal_backbone(tmp_path, saved, {"match_rate": 0.9})
    loaded = load_crystal_backbone(tmp_path)
    assert (loaded.latent_std, loaded.sizes) == (0.7, {2: 3, 20: 1})
    for name in ("vae", "denoiser", "conditions"):
        one, other = getattr(saved, name), getattr(loaded, name)
        if one is None:
            assert other is None
            continue
        for key, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[key]), key
    assert loaded.denoiser.config == saved.denoiser.config
    assert loaded.vae.config == saved.vae.config
    if conditional:
        assert loaded.conditions.conditions == CONDITIONS
        assert loaded.conditions.drop_prob == 0.2
    assert json.loads((tmp_path / "model.json").read_text())["match_rate"] == 0.9


def test_policy_has_what_was_saved(folder):
    policy = load_crystal_backbone(folder).policy(Sampling("ddim"))
    assert policy.latent_std == 0.7
    assert policy.sampling.sampler == "ddim"
    assert policy.conditions.columns == 101


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match=r"lacks model\.safetensors"):
        load_crystal_backbone(tmp_path)


def test_truncated(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="truncated"):
        load_crystal_backbone(folder)


def test_pointer(folder):
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="git lfs pull"):
        load_crystal_backbone(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_std": 0.0}, "latent_std=0.0 must be a positive number"),
        ({"latent_std": float("inf")}, "latent_std=inf must be a positive number"),
        ({"latent_std": None}, "lacks the entry 'latent_std'"),
        ({"sizes": {}}, "no size histogram"),
        ({"conditions": []}, "not expected"),
        ({"vae": {"width": 16, "colour": 1}}, "unknown backbone entries"),
        ({"vae": {"width": 16, "heads": 2, "feedforward": 32, "layers": 1, "latent": 4}}, "4 latent channels"),
        ({"denoiser": {"hidden": 32, "depth": 1, "heads": 2}}, "has shape"),
        (
            {"denoiser": {"hidden": 16, "depth": 1, "heads": 2, "layout": "rows"}},
            "layout=rows: must be one of",
        ),
        ({"denoiser": {"hidden": 16, "depth": 0, "heads": 2}}, "depth=0: must be at least 1"),
        ({"denoiser": {"hidden": 16, "depth": 1, "heads": 3}}, "a width of 16 with 3 heads: it must be even and"),
        ({"denoiser": {"hidden": 15, "depth": 1, "heads": 3}}, "a width of 15 with 3 heads: it must be even and"),
        ({"denoiser": 5}, "has 5 where the entries of DiTConfig should be"),
        ({"vae": [1]}, r"has \[1\] where the entries of CrystalVAEConfig should be"),
        ({"vae": {"width": 16, "heads": 0}}, "heads=0: must be at least 1"),
        ({"vae": {"width": 16, "heads": True}}, "heads=True is not of type int"),
        ({"vae": {"width": 16, "heads": 3}}, "a width of 16 with 3 heads"),
        ({"conditions": 5}, "conditions=5 is not a list"),
        ({"conditions": [5]}, "has 5 where the entries of Condition should be"),
        ({"conditions": [{"name": "gap"}]}, "kind: must be given"),
        ({"conditions": [{"name": "gap", "kind": "colour"}]}, "unknown kind 'colour'"),
        ({"conditions": [{"name": "gap.1", "kind": "value"}]}, "torch refuses these as names"),
        ({"conditions": [{"name": "keys", "kind": "value"}]}, "torch refuses these as names"),
        ({"drop_prob": "often"}, "drop_prob='often' is not a number"),
        ({"drop_prob": 2}, "drop_prob=2.0: must lie between 0 and 1"),
    ],
)
def test_cards_that_do_not_fit(folder, changes, message):
    rewrite(folder, **changes)
    with pytest.raises(UserError, match=message) as caught:
        load_crystal_backbone(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)
