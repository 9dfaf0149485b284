"""`python -m results` from nothing to its report, on a tiny backbone and without physics in the reward."""

import importlib.util
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from studies.__main__ import main

SMALL = Path(__file__).parents[1] / "training" / "small_backbone.py"


@pytest.fixture
def small_backbone():
    spec = importlib.util.spec_from_file_location("small_backbone", SMALL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_molecules(small_backbone, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small_backbone.write(tmp_path / "backbone")
    own = ("evaluation.", "dataloader.epoches", "reward.type", "reward.comp", "reward.use_energy", "train.energy_adv")
    tiny = [word for word in small_backbone.TINY if not word.startswith(own)]
    tiny += ["reward.components=[{_target_: atomrl.rewards.novelty.NoveltyReward}]"]  # best of N needs a total
    tiny += ["reward.use_energy=false", "train.force_adv_weight=0", "train.energy_adv_weight=0"]
    words = ["molecules", "--seeds", "0", "--docs", "docs", "--samples", "3", "--time-step", "5", "--best-of", "budget"]
    words += ["--jobs", "2", *tiny, "dataloader.epoches=2", "model.backbone=backbone"]

    main(words)
    out = capsys.readouterr().out
    done = [line.split()[1] for line in out.splitlines() if " done in " in line]
    assert done[0] == "train-0"
    assert sorted(done[1:]) == ["best-of-4", "evaluate-0"]  # at once: who ends first depends on the machine
    page = Path("docs/molecules.md").read_text()
    assert "each training scored 12 molecules: 2 iterations x 2 groups x 3" in page
    assert "3 fresh molecules a column, T = 5, evaluation seed 2000003" in page
    assert "N = ceil(12 / 3) = 4" in page
    assert "| best of 4 |" in page
    assert "differ between the evaluations" not in page
    table = json.loads(Path("runs/results/molecules/best-of-4/evaluation.json").read_text())
    assert list(table["columns"]) == ["base", "base best of 4", "trained"]
    curves = ET.parse("docs/molecules.svg").getroot()
    assert any(element.get("id") == "reward-seed-0" for element in curves.iter())

    main(words)  # nothing left to do, the same report
    out = capsys.readouterr().out
    assert out.count("done before") == 3
    assert " starts: " not in out
    assert Path("docs/molecules.md").read_text() == page
    main([*words, "--only-report"])
    assert Path("docs/molecules.md").read_text() == page
