"""Predictors survive the disk with their VAE, and folders of anything else say what is wrong."""

import json
import pickle

import pytest
import torch
from crystal_models import randomized, small_vae
from safetensors.torch import load_file, save_file
from small_crystal_set import packed

from atomrl.checkpoints.crystal import CrystalBackbone, load_crystal_backbone, save_crystal_backbone
from atomrl.checkpoints.predictor import load_predictor, save_predictor
from atomrl.checkpoints.vae import load_vae
from atomrl.evaluation.reconstruction import structures_of_batch
from atomrl.networks.dit import DiT, DiTConfig
from atomrl.networks.predictor import CrystalPredictor, PredictorConfig, PropertyHead
from atomrl.util.errors import UserError

CONFIG = PredictorConfig(pooling="sum", hidden=(6, 5), dropout=0.2)


def predictor() -> CrystalPredictor:
    torch.manual_seed(0)
    vae = randomized(small_vae())
    head = randomized(PropertyHead(CONFIG.inputs(vae.config), ("gap", "energy"), CONFIG))
    head.mean.copy_(torch.tensor([1.5, -3.0]))
    head.std.copy_(torch.tensor([0.5, 2.0]))
    return CrystalPredictor(vae, head, CONFIG)


@pytest.fixture
def folder(tmp_path):
    save_predictor(tmp_path / "predictor", predictor(), {"data": "mine"})
    return tmp_path / "predictor"


def rewrite(folder, **changes):
    card = json.loads((folder / "model.json").read_text())
    card.update(changes)
    (folder / "model.json").write_text(json.dumps({key: value for key, value in card.items() if value is not None}))


def test_round_trip(folder):
    saved, loaded = predictor(), load_predictor(folder)
    assert loaded.config == CONFIG
    assert loaded.targets == ("gap", "energy")
    assert loaded.vae.config == saved.vae.config
    assert not loaded.training
    samples = structures_of_batch(packed().padded())
    one, other = saved.predict(samples), loaded.predict(samples)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert json.loads((folder / "model.json").read_text())["data"] == "mine"


def test_its_vae_is_one_for_everybody(folder, tmp_path):
    """The VAE of a predictor, of a backbone, or of a shipped backbone is found by the same call."""
    expected = predictor().vae.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in load_vae(folder).state_dict().items())
    torch.manual_seed(0)
    backbone = CrystalBackbone(small_vae(), DiT(DiTConfig(hidden=16, depth=1, heads=2)), 0.7, {2: 1})
    save_crystal_backbone(tmp_path / "backbone", backbone, {})
    expected = backbone.vae.state_dict()
    assert all(
        torch.equal(value, expected[name]) for name, value in load_vae(tmp_path / "backbone").state_dict().items()
    )
    assert load_vae("crystal_small").config == load_crystal_backbone("crystal_small").vae.config
    with pytest.raises(UserError, match="edm_qm9_small holds no crystal VAE"):
        load_vae("edm_qm9_small")


def test_what_is_no_predictor(folder, tmp_path):
    with pytest.raises(UserError, match=r"no predictor at .*nowhere: give a folder .* `atomrl pretrain predictor`"):
        load_predictor(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no predictor in .*: it lacks model\.safetensors"):
        load_predictor(tmp_path)
    backbone = CrystalBackbone(small_vae(), DiT(DiTConfig(hidden=16, depth=1, heads=2)), 0.7, {2: 1})
    save_crystal_backbone(tmp_path / "backbone", backbone, {})
    with pytest.raises(UserError, match=r"backbone holds no predictor: its card lacks the entry 'predictor'"):
        load_predictor(tmp_path / "backbone")
    with pytest.raises(UserError, match="not a crystal backbone"):
        load_crystal_backbone(folder)


def test_damaged_files(folder, tmp_path):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="truncated"):
        load_predictor(folder)
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="git lfs pull"):
        load_predictor(folder)

    class Harmful:
        def __reduce__(self):
            return (exec, ("raise SystemExit",))

    weights.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(UserError, match="cannot be read"):
        load_predictor(folder)
    weights.write_bytes(content)
    (folder / "model.json").write_text("[1, 2]")
    with pytest.raises(UserError, match=r"model\.json holds list, not the mapping that describes a predictor"):
        load_predictor(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": None}, "lacks the entry 'targets'"),
        ({"targets": []}, "must be a list of names"),
        ({"targets": "gap"}, "must be a list of names"),
        ({"targets": ["gap"]}, "has shape"),
        ({"vae": None}, "lacks the entry 'vae'"),
        ({"predictor": {"pooling": "max"}}, "pooling=max: must be one of mean, sum"),
        ({"predictor": {"colour": 1}}, "unknown backbone entries"),
        ({"predictor": "mean"}, "has 'mean' where the entries of PredictorConfig should be"),
        ({"predictor": {"hidden": [6, 4, 3]}}, r"hidden=\[6, 4, 3\] is not of type tuple\[int, int\] \| None"),
        ({"predictor": {"hidden": [6, 4]}}, "has shape"),
    ],
)
def test_cards_that_do_not_fit(folder, changes, message):
    rewrite(folder, **changes)
    with pytest.raises(UserError, match=message) as caught:
        load_predictor(folder)
    assert "\n" not in str(caught.value)


def test_weights_of_a_training_that_diverged(folder):
    weights = load_file(folder / "model.safetensors")
    weights["predictor.layers.0.weight"][0, 0] = torch.nan
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"layers\.0\.weight holds numbers that are not finite"):
        load_predictor(folder)
