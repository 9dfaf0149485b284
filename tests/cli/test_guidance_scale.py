"""A scale of guidance that is typed is meant, also that of the default; one in a file may be the published default."""

from pathlib import Path

import published_experiments
import pytest

from atomrl.config import load_config, read_config, to_yaml
from atomrl.config.crystals import CrystalConfig
from atomrl.training.changed_settings import said_of

DNG = "experiment/mp_20/rl_dng"
OURS = "experiment/prototypes/rl_dng"
PUBLISHED_KEY = "rl_module.sampling_configs.cfg_scale"


def scale(name: str, *words: str, folder: Path | None = None) -> float | None:
    config = load_config(name, words, folder)
    assert isinstance(config, CrystalConfig)
    return config.model.guidance_scale


def write(folder: Path, value: str) -> Path:
    """A published folder whose module has this scale."""
    published_experiments.write(folder)
    path = folder / "rl_module" / "rl_module.yaml"
    text = path.read_text()
    assert "cfg_scale: 2.0" in text
    path.write_text(text.replace("cfg_scale: 2.0", f"cfg_scale: {value}"))
    return folder


@pytest.mark.parametrize(("value", "meant"), [("2.0", None), ("2", None), ("1.0", 1.0), ("3.0", 3.0)])
def test_a_published_file(value: str, meant: float | None, tmp_path: Path) -> None:
    """They carry 2.0 for every backbone, conditional or not."""
    assert scale(DNG, folder=write(tmp_path, value)) == meant


@pytest.mark.parametrize("key", [PUBLISHED_KEY, f"++{PUBLISHED_KEY}", "model.guidance_scale"])
def test_who_types_it_means_it(key: str, tmp_path: Path) -> None:
    assert scale(DNG, f"{key}=2", folder=write(tmp_path, "2.0")) == 2.0
    assert scale(OURS, f"{key}=2") == scale(OURS, "model={guidance_scale: 2}") == 2.0
    assert scale(OURS) is None


def test_a_run_of_an_earlier_version_says_nothing_by_the_default(tmp_path: Path) -> None:
    """It wrote 2 where nobody had said a scale."""
    text = to_yaml(load_config(OURS)).replace("guidance_scale: null", "guidance_scale: 2.0")
    assert "guidance_scale: 2.0" in text
    (tmp_path / "config.yaml").write_text(text)
    found = read_config(tmp_path / "config.yaml")
    assert found == load_config(OURS)
    assert said_of(found, load_config(OURS, ["model.guidance_scale=2"])) == ""
    assert said_of(found, load_config(OURS, ["model.guidance_scale=3"])) == "model.guidance_scale=3.0, was None"
