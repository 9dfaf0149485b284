"""The configurations of GEOM-Drugs, on a small network of its 16 elements in a folder as EDM's weights are published.

It is trained here on conformers that RDKit makes of the drugs in `own_molecules`.
"""

import json
import shutil
from pathlib import Path

import own_molecules
import pytest
from published_files import publish

from atomrl.checkpoints.backbone import load_backbone
from atomrl.checkpoints.published_edm import GEOM
from atomrl.cli import main
from atomrl.config import read_config


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published files of a network that has seen twelve drugs a few hundred times."""
    folder = tmp_path_factory.mktemp("geom")
    data = own_molecules.write_geom(folder / "geom_drugs.npy")
    shape = [
        f"model.elements=[{','.join(GEOM)}]",
        "model.hidden=32",
        "model.edge_hidden=null",
        "model.layers=1",
        "model.include_charges=false",
    ]
    short = ["train.steps=400", "train.warmup=10", "train.batch_size=8", "train.lr=3e-3", "held_out=0"]
    often = ["train.ema_decay=0.9", "quality_every=0", "threads=1"]
    main(["pretrain", "edm", f"data={data}", f"save_path={folder / 'trained'}", *shape, *short, *often])
    return publish(folder / "edm_geom_drugs", load_backbone(str(folder / "trained")).network, "geom")


@pytest.mark.parametrize("name", ["fed_grpo_geom_smoke", "fed_grpo_geom_config"])
def test_without_the_weights_they_say_where_these_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--config-name", name, "save_path=run"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "pretrained/edm/edm_geom_drugs/generative_model_ema.npy" in error
    assert "ehoogeboom/e3_diffusion_for_molecules" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "smaller"),
    [
        ("fed_grpo_geom_smoke", []),
        (
            "fed_grpo_geom_config",
            [
                "model.time_step=20",
                "dataloader.epoches=1",
                "dataloader.sample_group_size=1",
                "dataloader.each_prompt_sample=2",
                "reward.shaping.scheduler.skip_prefix=10",
            ],
        ),
    ],
)
def test_they_run_on_published_files(
    name: str, smaller: list[str], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(weights, tmp_path / "pretrained" / "edm" / "edm_geom_drugs")
    few = ["reward.workers=1", "log.tensorboard=false", "train.exploded_above=1e5"]  # it has hardly learned anything
    main(["train", "--config-name", name, "save_path=run", *few, *smaller])
    assert read_config(Path("run/config.yaml")).evaluation.profile == "edm-2022-single-bonds"  # as published
    (line,) = (json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert line["iteration"] == 0
    assert line["masked_samples"] < 2
    assert ("potentials" in line) == (name == "fed_grpo_geom_config")
