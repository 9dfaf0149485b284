"""Molecule backbones survive the disk, and damaged cards and checkpoints end in one line that says what is wrong."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from atomrl.checkpoints.backbone import load_backbone, save_backbone
from atomrl.checkpoints.stored import AVERAGED
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.util.errors import UserError

CONFIG = EDMConfig(hidden=8, edge_hidden=4, layers=1)
SIZES = {4: 2, 6: 1}


def network() -> EDMNetwork:
    torch.manual_seed(0)
    return EDMNetwork(CONFIG)


def refusal(where: Path) -> str:
    """The one line that loading ends in."""
    with pytest.raises(UserError) as caught:
        load_backbone(str(where))
    assert str(caught.value).startswith(str(where))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    save_backbone(tmp_path / "backbone", network(), SIZES, {"data": "mine"})
    return tmp_path / "backbone"


def checkpoint(**changes) -> dict[str, object]:
    """What a run's checkpoint holds of a backbone, changed."""
    weights = {AVERAGED + name: tensor for name, tensor in network().state_dict().items()}
    card = {"backbone": CONFIG.model_dump(), "sizes": {str(size): count for size, count in SIZES.items()}}
    return {"atomrl": card, "state_dict": weights} | changes


def test_round_trip(folder, tmp_path):
    torch.save(checkpoint(), tmp_path / "run.pth")
    for place in (folder, tmp_path / "run.pth"):
        loaded = load_backbone(str(place))
        assert loaded.network.config == CONFIG
        assert loaded.sizes == SIZES
        expected = network().state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in loaded.network.state_dict().items())


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("hidden", "16", "hidden='16' is not of type int"),
        ("hidden", 8.0, "hidden=8.0 is not of type int"),
        ("hidden", True, "hidden=True is not of type int"),
        ("hidden", -16, "hidden=-16: must be at least 1"),
        ("hidden", 0, "hidden=0: must be at least 1"),
        ("edge_hidden", 0, "edge_hidden=0: must be at least 1"),
        ("layers", 0, "layers=0: must be at least 1"),
        ("attention", 1, "attention=1 is not of type bool"),
        ("aggregation", "max", "aggregation=max: must be one of sum, mean"),
        ("normalization_factor", 0, "normalization_factor=0: must be positive"),
        ("normalization_factor", float("nan"), "normalization_factor=nan: must be positive and finite"),
        ("norm_constant", -1.0, "norm_constant=-1.0: must be finite and at least 0"),
        ("noise_precision", 0.7, "noise_precision=0.7: must lie between 0 and 0.5"),
        ("diffusion_steps", 0, "diffusion_steps=0: must be at least 1"),
        ("context_features", -1, "context_features=-1: must be at least 0"),
        ("normalize_factors", [1], "normalize_factors=[1] is not of type tuple[float, float, float]"),
        ("normalize_factors", [1, 0, 1], "normalize_factors=0: must be positive"),
        ("elements", [], "elements=[]: name one or more, each once"),
        ("elements", ["H", "C", "H"], "elements=['H', 'C', 'H']: name one or more, each once"),
        ("elements", ["H", "Qq", "X"], "['Qq', 'X'] are not element symbols"),
        ("elements", "HCNOF", "elements='HCNOF' is not of type tuple[str, ...]"),
        ("elements", [1, 6], "elements=[1, 6] is not of type tuple[str, ...]"),
        ("colour", 1, "unknown backbone entries ['colour']"),
    ],
)
def test_entries_that_no_network_can_have(folder, entry, value, message):
    card = json.loads((folder / "model.json").read_text())
    card["backbone"][entry] = value
    (folder / "model.json").write_text(json.dumps(card))
    assert message in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": 5}, "has 5 where the entries of EDMConfig should be"),
        ({"backbone": []}, "has [] where the entries of EDMConfig should be"),
        ({"sizes": {}}, "no size histogram"),
        ({"sizes": [1, 2]}, "sizes=[1, 2] is not a mapping"),
        ({"sizes": {"a": 1}}, "sizes have 'a': 1; both must be whole numbers"),
        ({"sizes": {"0": 1}}, "sizes have '0': 1"),
        ({"sizes": {"5": "many"}}, "sizes have '5': 'many'"),
        ({"sizes": {"5": 1.5}}, "sizes have '5': 1.5"),
        ({"sizes": {"5": -1}}, "sizes have '5': -1"),
        ({"sizes": {"5": 0}}, "counted 0 times"),
    ],
)
def test_cards_that_describe_nothing(folder, changes, message):
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(card | changes))
    assert message in refusal(folder)


def test_whole_numbers_are_no_weights(folder):
    weights = load_file(folder / "model.safetensors")
    name = "dynamics.egnn.embedding.weight"
    save_file(weights | {name: weights[name].half()}, folder / "model.safetensors")
    assert load_backbone(str(folder)).network.dynamics.egnn.embedding.weight.dtype == torch.float32
    save_file(weights | {name: weights[name].int()}, folder / "model.safetensors")
    assert f"{name} holds torch.int32, the model needs torch.float32" in refusal(folder)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_compute_nothing(folder, tmp_path, value):
    """They were sampled from, and gave molecules of NaN."""
    weights, name = load_file(folder / "model.safetensors"), "dynamics.egnn.embedding.weight"
    weights[name][0, 0] = value
    save_file(weights, folder / "model.safetensors")
    torch.save(checkpoint(state_dict={AVERAGED + key: tensor for key, tensor in weights.items()}), tmp_path / "run.pth")
    for where in (folder, tmp_path / "run.pth"):
        said = refusal(where)
        assert f"{name} holds numbers that are not finite" in said
        assert "card" not in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"atomrl": 5}, "its entry 'atomrl' is 5, not the mapping"),
        ({"atomrl": {}}, "is not a molecule backbone: its card lacks the entry 'backbone'; give a model of molecules"),
        ({"state_dict": 5}, "where its weights should be it has int"),
        ({"state_dict": {AVERAGED + "buffer": 5}}, "buffer', which is int"),
        ({"state_dict": {5: torch.zeros(1)}}, "its weights hold 5, which is Tensor"),
        ({"state_dict": {}}, "missing ['buffer'"),
    ],
)
def test_checkpoints_that_hold_something_else(tmp_path, changes, message):
    torch.save(checkpoint(**changes), tmp_path / "run.pth")
    assert message in refusal(tmp_path / "run.pth")


@pytest.mark.parametrize("entry", ["atomrl", "state_dict"])
def test_checkpoints_of_something_else(tmp_path, entry):
    whole = checkpoint()
    del whole[entry]
    torch.save(whole, tmp_path / "run.pth")
    assert f"not a checkpoint of this package: it lacks the entry '{entry}'" in refusal(tmp_path / "run.pth")


@pytest.mark.parametrize("content", [b"", b"hello\n", b"error\n", b"yaml: 1\n", b"PK", b"\x80\x02}."])
def test_files_of_something_else(tmp_path, content):
    (tmp_path / "run.pth").write_bytes(content)
    assert "is not a file of torch.save" in refusal(tmp_path / "run.pth")


def test_a_checkpoint_that_changed_on_its_way(tmp_path):
    path = tmp_path / "run.pth"
    torch.save(checkpoint(), path)
    whole = path.read_bytes()
    for name, place in (("archive/data.pkl", whole.index(b"backbone")), ("archive/data/", len(whole) // 2)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        message = refusal(path)
        assert "another checksum" in message
        assert name.partition("/")[2] in message
    path.write_bytes(whole[: len(whole) // 2])
    assert "is it truncated?" in refusal(path)
