"""A backbone of the user's own molecules: trained from nothing or from another backbone, then sampled and judged by."""

import json
from pathlib import Path

import own_molecules
import pytest
import torch

from atomrl.checkpoints.backbone import load_backbone, save_backbone
from atomrl.chemistry.known_smiles import KNOWN_FILE, known_file, read_known
from atomrl.chemistry.rdkit import PROFILES, PROTOCOL
from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.cli import main
from atomrl.networks.edm import EDMConfig, EDMNetwork
from atomrl.pretraining import own_data
from atomrl.pretraining.edm_run import pretrain_edm
from atomrl.util.errors import UserError

RUN = [
    "train.steps=3",
    "train.warmup=1",
    "train.batch_size=4",
    "threads=1",
    "val_every=2",
    "quality_every=2",
    "log_every=1",
]
SMALL = [*RUN, "quality_samples=2", "model.hidden=16", "model.edge_hidden=8", "model.layers=1"]


@pytest.fixture(scope="module")
def small_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of QM9's elements, in another order than that of their numbers."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(1)
    network = EDMNetwork(EDMConfig(hidden=16, edge_hidden=8, layers=1, elements=("C", "H", "O", "N", "F")))
    save_backbone(folder, network, {5: 1}, {})
    return folder


@pytest.mark.parametrize("name", ["drugs.sdf", "drugs.npy"])
def test_from_a_file_to_samples(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, folder = own_molecules.WRITERS[name](tmp_path / name), tmp_path / "backbone"
    main(["pretrain", "edm", f"data={data}", f"save_path={folder}", *SMALL])
    said = capsys.readouterr().out
    assert f"{data}: 12 of 12 molecules read, elements H, C, N, O, F, S, Cl; 1 held out" in said
    made = load_backbone(str(folder))
    assert made.network.config.elements == ("H", "C", "N", "O", "F", "S", "Cl")
    assert sum(made.sizes.values()) == 11
    assert set(made.sizes) <= {len(mol.GetAtoms()) for mol in own_molecules.conformers().values()}
    card = json.loads((folder / "model.json").read_text())
    assert card["data"] == {"from": str(data), "train": 11, "validation": 1, "left_out": 0}
    written = tmp_path / "samples.extxyz"
    main(["sample", "--backbone", str(folder), "--num-molecules", "3", "--time-step", "5", "--output", str(written)])
    assert "3 molecules" in capsys.readouterr().out
    assert written.is_file()


def test_a_broken_entry_is_written_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = own_molecules.write_sdf(tmp_path / "drugs.sdf")
    whole = data.read_text()
    data.write_text(whole.replace(" C ", " Cx", 1))
    folder = pretrain_edm([*SMALL, f"data={data}", f"save_path={tmp_path / 'run'}"])
    assert "11 of 12 molecules read" in capsys.readouterr().out
    assert (folder / "left_out.txt").read_text().startswith("drugs.sdf entry 1 (aspirin): ")
    data.write_text(whole)  # these weights are not of the mended file
    with pytest.raises(UserError, match=r"last\.ckpt began with content of data \(SHA-256\)="):
        pretrain_edm([*SMALL, f"data={data}", f"save_path={tmp_path / 'run'}"])


def test_novelty_is_counted_against_the_training_molecules(tmp_path: Path) -> None:
    data = own_molecules.write_sdf(tmp_path / "drugs.sdf")
    folder = pretrain_edm([*SMALL, f"data={data}", f"save_path={tmp_path / 'run'}", "held_out=0"])
    known = read_known(folder)
    assert known.molecules == 12
    assert 8 <= len(known) <= 12  # the table reads too many bonds into some
    assert known.described.endswith(f"RDKit {known.rdkit_version}")
    assert str(folder) in known.described
    assert (read_known(folder / KNOWN_FILE).hashes == known.hashes).all()
    few = ["--num-molecules", "2", "--time-step", "2"]
    overrides = ["reward.workers=1", f"dataloader.smiles_path={folder}"]
    for profile in PROFILES:
        assert read_known(folder, profile=profile).protocol == profile
        output = tmp_path / profile
        words = [*few, *overrides, f"evaluation.profile={profile}"]
        main(["evaluate", "--base", str(folder), "--output", str(output), *words])
        assert f"from {folder}" in json.loads((output / "evaluation.json").read_text())["conditions"]["novelty_set"]
    perceived = read_known(folder, profile=PROFILES[-1])
    assert len(perceived) == 12  # RDKit's perception reads each of them
    assert not perceived.contains(["O"]).any()


def test_bonds_of_very_many_molecules_are_not_perceived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(own_data, "MANY", 11)
    data = own_molecules.write_sdf(tmp_path / "drugs.sdf")
    folder = pretrain_edm([*SMALL, f"data={data}", f"save_path={tmp_path / 'run'}", "held_out=0"])
    assert "novelty by the profile rdkit-xyz2mol is not prepared: of more than 11 molecules" in caplog.text
    assert [(folder / known_file(profile)).is_file() for profile in PROFILES] == [True, True, False]


def test_a_folder_of_an_earlier_version_has_the_names_of_one_profile(tmp_path: Path) -> None:
    TrainingSmiles.of(["[H]O[H]"], 1, PROTOCOL, "x").save(tmp_path / KNOWN_FILE)
    assert len(read_known(tmp_path)) == 1
    for profile in PROFILES[1:]:
        with pytest.raises(UserError, match=f"holds names of profile edm-2022, not of {profile}: give a text file"):
            read_known(tmp_path, profile=profile)
        TrainingSmiles.of(["[H]O[H]"], 1, profile, "x").save(tmp_path / known_file(profile))
        assert read_known(tmp_path, profile=profile).protocol == profile


def test_a_backbone_is_trained_further(small_backbone: Path, tmp_path: Path) -> None:
    """The first step starts from its weights, and its elements keep their order."""
    data = own_molecules.write_sdf(tmp_path / "drugs.sdf", own_molecules.QM9_LIKE)
    options = [*RUN, "quality_samples=2", f"data={data}", f"backbone={small_backbone}", "train.lr=1e-9"]
    made = load_backbone(str(pretrain_edm([*options, f"save_path={tmp_path / 'run'}"])))
    before = load_backbone(str(small_backbone)).network
    assert made.network.config == before.config
    for name, weight in before.state_dict().items():
        assert torch.allclose(made.network.state_dict()[name], weight, atol=1e-6)
    assert made.sizes != {5: 1}  # those of the data
    card = json.loads((tmp_path / "run" / "model.json").read_text())
    assert card["started_from"] == str(small_backbone)


def test_another_start_is_another_run(small_backbone: Path, tmp_path: Path) -> None:
    data = own_molecules.write_sdf(tmp_path / "drugs.sdf", own_molecules.QM9_LIKE)
    options = [*RUN, f"data={data}", f"backbone={small_backbone}", f"save_path={tmp_path / 'run'}", "quality_every=0"]
    pretrain_edm(options)
    with pytest.raises(UserError, match=r"began with split_seed=0, not split_seed=1"):
        pretrain_edm([*options, "split_seed=1"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["backbone=SMALL"], "knows C, H, O, N, F: DATA also holds S, Cl; leave such molecules out"),
        (["backbone=SMALL", "model.layers=2"], "backbone=SMALL fixes the network: leave model.* out"),
        (["backbone=nowhere"], "no backbone at nowhere"),
        (["model.elements=[H,C,N,O,F,Cl]"], "model.elements=['H', 'C', 'N', 'O', 'F', 'Cl']: DATA also holds S"),
        (["model.context_features=1"], "model.context_features=1: context=[...] names the columns"),
        (["held_out=1"], "held_out=1.0: must"),
        (["train.batch_size=100"], "batches of 100 out of 11 structures"),
        (["data=nowhere.sdf"], "data=nowhere.sdf cannot be read: No such file"),
        (["data=qm8"], "data=qm8: the ending must be one of "),
    ],
)
def test_what_does_not_fit_is_one_line(options, words: str, small_backbone: Path, tmp_path: Path) -> None:
    data = own_molecules.write_sdf(tmp_path / "drugs.sdf")
    given = [f"data={data}", *(option.replace("SMALL", str(small_backbone)) for option in options)]
    with pytest.raises(UserError) as caught:
        pretrain_edm([*given, f"save_path={tmp_path / 'run'}"])
    assert words.replace("SMALL", str(small_backbone)).replace("DATA", str(data)) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_elements_without_a_valence_are_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "se.xyz").write_text("3\n\nSe 0 0 0\nH 1.46 0 0\nH 0 1.46 0\n" * 6)
    given = [*SMALL, f"data={tmp_path / 'se.xyz'}", f"save_path={tmp_path / 'run'}"]
    with pytest.raises(UserError, match=r"no valence for Se.*quality_every=0"):
        pretrain_edm(given)
    made = load_backbone(str(pretrain_edm([*given, "quality_every=0"])))
    assert made.network.config.elements == ("H", "Se")
