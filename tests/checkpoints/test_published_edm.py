"""Published EDM folders: the imported network gives the golden answers, and nothing in a file runs."""

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import golden
import pytest
import torch
from published_files import publish, published

from atomrl.checkpoints.backbone import load_backbone
from atomrl.cli import main
from atomrl.config import load_config
from atomrl.networks.edm import EDMConfig, EDMNetwork

PUBLISHED_SIZES = {
    "qm9": EDMConfig(hidden=256, edge_hidden=None, layers=9, elements=golden.QM9, include_charges=True),
    "geom": EDMConfig(hidden=256, edge_hidden=None, layers=4, elements=golden.GEOM),
    "qm9_second_half": EDMConfig(
        hidden=192,
        edge_hidden=None,
        layers=9,
        elements=golden.QM9,
        normalize_factors=(1.0, 8.0, 1.0),
        context_features=1,
    ),
}
"""Networks as large as the published ones, by data set: of QM9, GEOM-Drugs and, conditioned on `alpha`, half of QM9."""


@pytest.mark.parametrize("name", golden.EDM_CASES)
@pytest.mark.parametrize(("protocol", "repeated"), [(3, False), (4, True)])
def test_an_imported_network_gives_the_golden_answers(name: str, protocol: int, repeated: bool, tmp_path: Path) -> None:
    case = golden.load_edm(name)
    folder = published(tmp_path / "published", case, name, protocol, repeated)
    words = ["import", "edm", str(folder), "--output", str(tmp_path / "out")]
    if name == "edm_geom" and repeated:
        (tmp_path / "sizes.json").write_text('{"44": 3, "46": 2}')
        words += ["--sizes", str(tmp_path / "sizes.json")]
    main(words)
    backbone = load_backbone(str(tmp_path / "out"))
    assert backbone.network.config == case.network.config
    assert backbone.sizes == ({44: 3, 46: 2} if "--sizes" in words else published_sizes(name))
    assert load_backbone(str(folder)).sizes == published_sizes(name)
    steps, s = golden.WALKS[1]
    time = torch.full((len(case.mask),), (s + 1) / steps)
    with torch.no_grad():
        found = backbone.network(case.expected["z_t"], time, case.mask, case.context)
    assert golden.error(found, case.expected[f"T{steps}_s{s}_eps"]) < case.tolerance


@pytest.mark.parametrize("dataset", PUBLISHED_SIZES)
def test_networks_of_the_published_sizes_are_imported(
    dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = EDMNetwork(PUBLISHED_SIZES[dataset])
    publish(Path("edm"), network, dataset, repeated=True)
    main(["import", "edm", "edm", "--output", "out"])
    found = load_backbone("out").network
    assert found.config == network.config
    width = 3 + len(network.config.elements) + network.config.include_charges
    mask = torch.tensor([[1.0] * 5, [1.0] * 3 + [0.0] * 2])
    z = torch.randn(2, 5, width) * mask[..., None]
    context = torch.tensor([[0.5], [-0.5]]) if network.config.context_features else None
    with torch.no_grad():
        noise = found(z, torch.tensor([0.3, 0.9]), mask, context)
        assert torch.equal(noise, network(z, torch.tensor([0.3, 0.9]), mask, context))
    assert noise.shape == z.shape
    assert bool(noise.isfinite().all())


def published_sizes(name: str) -> Mapping[int, int]:
    """GEOM-Drugs' 6,922,516 conformers, which have 322,877,623 atoms as published; or QM9's."""
    if name != "edm_geom":
        return load_backbone("edm_qm9_small").sizes
    path = resources.files("atomrl") / "assets" / "geom_drugs_sizes.json"
    sizes = {int(atoms): count for atoms, count in json.loads(path.read_text()).items()}
    assert (sum(sizes.values()), sum(atoms * count for atoms, count in sizes.items())) == (6_922_516, 322_877_623)
    return sizes


def test_a_published_folder_is_a_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case = golden.load_edm("edm_qm9")
    published(tmp_path / "edm", case, "edm_qm9")
    main(["sample", "--backbone", "edm", "--num-molecules", "2", "--time-step", "2", "--output", "two.extxyz"])
    assert (tmp_path / "two.extxyz").read_text().count("Lattice") == 0
    files = ["model.config=./edm/args.pickle", "model.model_path=./edm/generative_model_ema.npy"]
    assert load_config("fed_grpo_config", files).model.backbone == "edm"
    for words in (files, ["checkpoint_path=edm/generative_model_ema.npy"]):
        loaded = load_backbone(load_config("fed_grpo_config", words).model.backbone).network
        for name, tensor in case.network.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor)


def test_an_older_file_lacks_later_settings(tmp_path: Path) -> None:
    """Published code reads it with a factor of 1, and sums."""
    case = golden.load_edm("edm_qm9")
    folder = published(tmp_path / "edm", case, "edm_qm9", normalization_factor=..., aggregation_method=...)
    assert load_backbone(str(folder)).network.config == case.network.config


@pytest.mark.parametrize("repeated", [False, True])
def test_several_processes_write_a_prefix_before_all_names(repeated: bool, tmp_path: Path) -> None:
    case = golden.load_edm("edm_qm9")
    folder = published(tmp_path / "edm", case, "edm_qm9", repeated=repeated)
    weights = torch.load(folder / "generative_model_ema.npy")
    torch.save({f"module.{name}": tensor for name, tensor in weights.items()}, folder / "generative_model_ema.npy")
    found = load_backbone(str(folder)).network.state_dict()
    for name, tensor in case.network.state_dict().items():
        assert torch.equal(found[name], tensor)


def test_a_conditional_model_says_that_it_needs_a_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    published(tmp_path / "edm", golden.load_edm("edm_alpha"), "edm_alpha")
    for words in (["sample", "--backbone", "edm"], ["sample", "--backbone", "edm", "--context", "alpha=75"]):
        refused(words, "edm is conditioned on alpha and does not say how its values are distributed", capsys)


def test_an_imported_conditional_model_may_take_qm9s_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    published(tmp_path / "edm", golden.load_edm("edm_alpha"), "edm_alpha")
    main(["import", "edm", "edm", "--properties", "--output", "out"])
    known = load_backbone("out").conditioning.known["alpha"]
    assert known.counts.sum() == 100_000
    assert known.mean == pytest.approx(75.3, abs=0.1)  # Bohr^3, of QM9
    words = ["--num-molecules", "2", "--time-step", "2", "--context", "alpha=75", "--output", "two.extxyz"]
    main(["sample", "--backbone", "out", *words])
    assert (tmp_path / "two.extxyz").is_file()


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
        ({"dataset": ["qm9"]}, "dataset=['qm9']: its elements are not known"),
        ({"conditioning": None}, "conditioning=None: must be a list of the properties"),
        ({"conditioning": "alpha"}, "conditioning='alpha': must be a list of the properties"),
        ({"normalize_factors": None}, "normalize_factors"),
        ({"normalize_factors": [1, 4]}, "normalize_factors"),
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
    refused([*words, "--properties"], "published holds a model that is not conditional: leave out --properties", capsys)
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
