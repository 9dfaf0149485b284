"""Published EDM folders: the imported network gives the golden answers, and nothing in a file runs."""

import argparse
import json
import pickle
from pathlib import Path
from typing import Any

import golden
import pytest
import torch

from atomrl.checkpoints.backbone import load_backbone
from atomrl.cli import main

SETTINGS: dict[str, Any] = {
    "model": "egnn_dynamics",
    "probabilistic_model": "diffusion",
    "diffusion_noise_schedule": "polynomial_2",
    "condition_time": True,
    "remove_h": False,
    "attention": True,
    "tanh": True,
    "norm_constant": 1,
    "diffusion_steps": 1000,
    "diffusion_noise_precision": 1e-5,
    "exp_name": "something else that is in there",
    "lr": 1e-4,
}
DATASETS = {"edm_qm9": "qm9", "edm_geom": "geom", "edm_alpha": "qm9_second_half", "edm_sin_mean": "qm9"}


def published(
    folder: Path, case: golden.GoldenEDM, name: str, protocol: int = 4, repeated: bool = False, **other: Any
) -> Path:
    """A folder as it is published, of a golden network."""
    config = case.network.config
    settings = {
        **SETTINGS,
        "dataset": DATASETS[name],
        "nf": config.hidden,
        "n_layers": config.layers,
        "inv_sublayers": config.inv_sublayers,
        "sin_embedding": config.sin_embedding,
        "include_charges": config.include_charges,
        "context_node_nf": config.context_features,
        "conditioning": ["alpha"] if config.context_features else [],
        "normalize_factors": list(config.normalize_factors),
        "normalization_factor": int(config.normalization_factor),
        **({} if config.aggregation == "sum" else {"aggregation_method": config.aggregation}),
        **other,
    }
    folder.mkdir()
    kept = {key: value for key, value in settings.items() if value is not ...}
    (folder / "args.pickle").write_bytes(pickle.dumps(argparse.Namespace(**kept), protocol=protocol))
    state = case.network.state_dict()
    both = {**state, **{f"model.{key}": value for key, value in state.items()}}
    torch.save(both if repeated else state, folder / "generative_model_ema.npy")
    return folder


@pytest.mark.parametrize("name", golden.EDM_CASES)
@pytest.mark.parametrize(("protocol", "repeated"), [(3, False), (4, True)])
def test_an_imported_network_gives_the_golden_answers(name: str, protocol: int, repeated: bool, tmp_path: Path) -> None:
    case = golden.load_edm(name)
    folder = published(tmp_path / "published", case, name, protocol, repeated)
    words = ["import", "edm", str(folder), "--output", str(tmp_path / "out")]
    if name == "edm_geom":
        (tmp_path / "sizes.json").write_text('{"44": 3, "46": 2}')
        words += ["--sizes", str(tmp_path / "sizes.json")]
    main(words)
    backbone = load_backbone(str(tmp_path / "out"))
    assert backbone.network.config == case.network.config
    assert backbone.sizes == ({44: 3, 46: 2} if name == "edm_geom" else load_backbone("edm_qm9_small").sizes)
    steps, s = golden.WALKS[1]
    time = torch.full((len(case.mask),), (s + 1) / steps)
    with torch.no_grad():
        found = backbone.network(case.expected["z_t"], time, case.mask, case.context)
    assert golden.error(found, case.expected[f"T{steps}_s{s}_eps"]) < case.tolerance


class Harmful:
    def __reduce__(self) -> tuple:
        return (Path("harmed").touch, ())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"harm": Harmful()}, "is no pickled argparse.Namespace of plain values"),
        ({"nf": ...}, "lacks nf: is it the args.pickle of an EDM training?"),
        ({"model": "gnn_dynamics"}, "model='gnn_dynamics', and only 'egnn_dynamics' can be imported"),
        ({"dataset": "zinc"}, "dataset='zinc': its elements are not known"),
        ({"nf": 16}, "has shape"),
        ({"n_layers": 2}, "tensors do not fit the model"),
        ({"diffusion_noise_precision": 0.9}, "noise_precision"),
    ],
)
def test_what_cannot_be_imported_is_one_line(
    changed: dict[str, Any],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = published(tmp_path / "published", golden.load_edm("edm_qm9"), "edm_qm9", **changed)
    refused(["import", "edm", str(folder), "--output", "out"], message, capsys)
    assert not (tmp_path / "harmed").exists()


def refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (Path("out") / "model.json").exists()


def test_files_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["import", "edm", "published", "--output", "out"]
    refused(words, "cannot read published/args.pickle: No such file", capsys)
    folder = published(tmp_path / "published", golden.load_edm("edm_geom"), "edm_geom")
    refused(words, "a model of geom needs the sizes of its molecules", capsys)
    (tmp_path / "sizes.json").write_text("[1, 2]")
    refused([*words, "--sizes", "sizes.json"], "is not a mapping of atoms to counts", capsys)
    weights = folder / "generative_model_ema.npy"
    torch.save({"harm": Harmful()}, weights)
    (tmp_path / "sizes.json").write_text(json.dumps({"44": 1}))
    refused([*words, "--sizes", "sizes.json"], "holds more than tensors and plain values", capsys)
    weights.unlink()
    refused([*words, "--sizes", "sizes.json"], "an EDM folder holds args.pickle and generative_model_ema.npy", capsys)
    (folder / "args.pickle").write_bytes((folder / "args.pickle").read_bytes()[:20])
    refused(words, "is no pickled argparse.Namespace", capsys)
    assert not (tmp_path / "harmed").exists()
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "model.json").write_text("{}")
    with pytest.raises(SystemExit):
        main(words)
    assert "--output out holds a model" in capsys.readouterr().err
