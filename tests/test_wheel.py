"""The wheel, installed elsewhere, carries configurations and weights and runs."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from atomrl.report.page import LIBRARY, SCRIPTS

ROOT = Path(__file__).resolve().parents[1]


def run(words: list[str], **options) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the package from its wheel, and nothing of the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)])
    (wheel,) = folder.glob("*.whl")
    run([sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(folder / "site"), str(wheel)])
    return folder


def test_the_wheel_holds_the_package_alone(installed):
    """All experiments are in it; what only makes documented names work from the repository's root is not."""
    (wheel,) = installed.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"atomrl"}
    assert not [name for name in names if name.startswith("atomrl/rl_module") or "train_rl.py" in name]
    source = ROOT / "src"
    experiments = {path.relative_to(source).as_posix() for path in (source / "atomrl").rglob("*.yaml")}
    assert "atomrl/config/published_yaml/base/train_rl.yaml" in experiments
    assert "atomrl/assets/mp_20_sizes.json" in names
    assert "atomrl/conf/experiment/mp_20/rl_dng.yaml" in experiments
    of_report = {f"atomrl/assets/report/{name}" for name in ("page.html", "report.css", *SCRIPTS)}
    library = {f"atomrl/assets/3dmol/{name}" for name in (LIBRARY, "LICENSE", "LICENSE.bundled")}
    assert of_report | library <= names
    assert experiments <= names


def test_the_wheel_samples_and_trains(installed):
    environment = {**os.environ, "PYTHONPATH": str(installed / "site"), "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-c", "import atomrl, sys; print(atomrl.__file__); from atomrl.cli import main; main()"]
    shown = run([*start, "sample", "--num-molecules", "2", "--time-step", "5"], cwd=installed, env=environment)
    assert str(installed / "site") in shown
    assert (installed / "samples.extxyz").is_file()
    small = ["dataloader.epoches=1", "dataloader.sample_group_size=1", "dataloader.each_prompt_sample=2"]
    small += ["model.time_step=5", "evaluation.samples=0", "reward.workers=1", "save_path=run"]
    run([*start, "train", *small], cwd=installed, env=environment)
    assert (installed / "run" / "checkpoint_latest.pth").is_file()
