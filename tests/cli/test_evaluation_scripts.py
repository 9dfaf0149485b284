"""The documented scripts of an evaluation: they draw, judge and repair, and say what they cannot do."""

import json
import runpy
import shutil
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from atomrl.cli import main, metrics_main, rollout_main
from atomrl.commands.metrics import _say, _summary
from atomrl.core.records import Structures
from atomrl.evaluation.molecules import METRICS
from atomrl.evaluation.repair import LONGEST_STEP, RepairPlan, repair, with_hydrogens
from atomrl.export.rollout_file import RolloutFile
from atomrl.force_fields.xtb import XTBForceField
from atomrl.measures.bootstrap import proportion
from atomrl.structures.molecules import Geometry
from atomrl.structures.padding import join
from atomrl.util.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one iteration from the shipped backbone."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    small = ["dataloader.epoches=1", "dataloader.sample_group_size=1", "dataloader.each_prompt_sample=2"]
    shorter = ["model.time_step=10", "reward.type=dummy", "evaluation.samples=0", "reward.workers=1"]
    less = ["log.tensorboard=false", "log.rdkit=false", "train.train_steps=null", "train.stability_adv_weight=0"]
    main(["train", "--config-name", "demo_fed_grpo", f"save_path={folder}", *small, *shorter, *less])
    return folder


def test_molecules_of_two_seeds_are_drawn_and_judged(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples, output, raw = tmp_path / "samples.pt", tmp_path / "metrics.json", tmp_path / "raw.jsonl"
    words = ["eval_elign_rollout.py", "--run-dir", str(run), "--num-molecules", "8"]
    words += ["--time-step", "25", "--seed", "3", "4", "--output", str(samples)]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    file = RolloutFile.read(samples)
    assert file.seeds.tolist() == [3] * 8 + [4] * 8
    assert file.about["time_step"] == 25
    assert not torch.equal(file.structures.positions[:8], file.structures.positions[8:])
    words = ["compute_elign_metrics.py", "--run-dir", str(run), "--samples", str(samples)]
    words += ["--output", str(output), "--save-raw", str(raw), "--repair-unstable", "--repair-add-h"]
    monkeypatch.setattr(sys, "argv", words)
    capsys.readouterr()
    runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    said = capsys.readouterr().out
    found = json.loads(output.read_text())
    assert "as sampled, 2 seeds" in said
    assert "repaired, 2 seeds" in said
    lines = [json.loads(line) for line in raw.read_text().splitlines()]
    assert len(lines) == 32
    for column in ("as_sampled", "repaired"):
        shares = []
        for seed in ("3", "4"):
            part = found[column]["seeds"][seed]
            stable = [line["stable"] for line in lines if (line["column"], str(line["seed"])) == (column, seed)]
            assert part["samples"] == len(stable) == 8
            assert part["metrics"]["molecule_stability"]["value"] == sum(stable) / 8
            shares.append(sum(stable) / 8)
        assert found[column]["mean"]["molecule_stability"] == sum(shares) / 2
        assert found[column]["std"]["molecule_stability"] == pytest.approx(abs(shares[0] - shares[1]) / 2**0.5)
    unstable = [line for line in lines if line["column"] == "as_sampled" and not line["stable"]]
    assert found["repair"]["molecules"] == len(unstable) > 0
    assert found["repaired"]["mean"]["molecule_stability"] >= found["as_sampled"]["mean"]["molecule_stability"]
    assert found["evaluator"] == "GFN2-xTB"


def test_the_same_seed_gives_the_same_molecules_in_any_batches(run: Path, tmp_path: Path) -> None:
    for name, batch in (("one", "8"), ("two", "2")):
        words = ["--run-dir", str(run), "--num-molecules", "6", "--time-step", "5", "--sample-group-size", batch]
        rollout_main([*words, "--output", str(tmp_path / f"{name}.pt")])
    one, two = (RolloutFile.read(tmp_path / f"{name}.pt") for name in ("one", "two"))
    assert torch.equal(one.structures.numbers, two.structures.numbers)
    assert torch.allclose(one.structures.positions, two.structures.positions, atol=1e-4)
    shared = ["--each-prompt-sample", "3", "--share-initial-noise", "--skip-prefix", "4"]
    rollout_main([*words, *shared, "--output", str(tmp_path / "shared.pt")])
    assert RolloutFile.read(tmp_path / "shared.pt").structures.sizes.unique().numel() <= 2


def test_without_a_force_field(run: Path, tmp_path: Path) -> None:
    words = ["--run-dir", str(run), "--num-molecules", "4", "--time-step", "5", "--output", str(tmp_path / "s.pt")]
    rollout_main(words)
    words = ["--run-dir", str(run), "--samples", str(tmp_path / "s.pt"), "--output", str(tmp_path / "m.json")]
    metrics_main([*words, "--skip-mlff-metrics"])
    found = json.loads((tmp_path / "m.json").read_text())
    assert "rms_force_median" not in found["as_sampled"]["mean"]
    assert found["as_sampled"]["std"]["validity"] is None  # one seed
    assert "repaired" not in found


def test_files_are_judged_together_where_they_belong_together() -> None:
    """A seed that came twice would count each molecule twice; what a table says of the first would not hold for all."""

    def of(seed: int, **about: object) -> RolloutFile:
        return RolloutFile(
            join([Geometry(np.array([2]), np.zeros((1, 3)))], torch.float32), torch.tensor([seed]), about
        )

    assert RolloutFile.concatenate([of(0, time_step=9), of(1, time_step=9)]).seeds.tolist() == [0, 1]
    with pytest.raises(UserError, match="several files hold samples of seed 1: give each seed once"):
        RolloutFile.concatenate([of(0), of(1), of(1)])
    with pytest.raises(UserError, match="the files differ in time_step, 9 and 50: judge them separately"):
        RolloutFile.concatenate([of(0, time_step=9), of(1, time_step=50)])


def test_the_profile_is_that_of_the_run(run: Path, tmp_path: Path) -> None:
    """By the published metric of GEOM-Drugs every bond is a single one: nitrogen is `NN`."""
    other, config = tmp_path / "other", (run / "config.yaml").read_text()
    shutil.copytree(run, other)
    (other / "config.yaml").write_text(config.replace("profile: edm-2022", "profile: edm-2022-single-bonds"))
    nitrogen = join([Geometry(np.array([7, 7]), np.array([[0.0, 0, 0], [0, 0, 1.1]]))], torch.float32)
    RolloutFile(nitrogen, torch.tensor([0]), {}).write(tmp_path / "n2.pt")
    for folder, profile, smiles in ((run, "edm-2022", "N#N"), (other, "edm-2022-single-bonds", "NN")):
        words = ["--run-dir", str(folder), "--samples", str(tmp_path / "n2.pt"), "--skip-mlff-metrics"]
        metrics_main([*words, "--output", str(tmp_path / "m.json"), "--save-raw", str(tmp_path / "raw.jsonl")])
        assert json.loads((tmp_path / "m.json").read_text())["profile"] == profile
        line = json.loads((tmp_path / "raw.jsonl").read_text())
        assert (line["smiles"], line["heavy_atoms"], line["rings"]) == (smiles, 2, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-molecules", "0"], "--num-molecules 0: must be at least 1"),
        (["--num-molecules", "5", "--each-prompt-sample", "2"], "is not a multiple of --each-prompt-sample"),
        (["--seed", "1", "1"], "--seed 1 1: each seed once"),
        (["--skip-prefix", "3"], "--skip-prefix 3: molecules that walk together start together; give --share-init"),
        (["--skip-prefix", "3", "--share-initial-noise"], "with --each-prompt-sample 1: nothing shares the prefix"),
        (["--time-step", "0"], "--time-step 0: must be at least 1"),
        (["--checkpoint", "none.pth"], "none.pth"),
        (["--numb"], "unrecognized arguments"),
    ],
)
def test_wrong_words_of_the_rollout(
    words: list[str], message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        rollout_main(["--run-dir", str(run), "--output", str(tmp_path / "s.pt"), *words])
    _one_line(stopped, message, capsys)
    assert not (tmp_path / "s.pt").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--repair-add-h"], "--repair-add-h needs --repair-invalid or --repair-unstable"),
        (["--repair-alpha", "-1"], "--repair-steps 3 --repair-alpha -1.0: must be"),
        ([], "s.pt holds no samples of a rollout"),
    ],
)
def test_wrong_words_of_the_metrics(
    words: list[str], message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"numbers": torch.ones(1)}, tmp_path / "s.pt")
    with pytest.raises(SystemExit) as stopped:
        metrics_main(
            ["--run-dir", str(run), "--samples", str(tmp_path / "s.pt"), "--output", str(tmp_path / "m.json"), *words]
        )
    _one_line(stopped, message, capsys)
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize("seeds", [(0, 1), (1, 0)])
def test_a_row_that_not_every_seed_has(seeds: tuple[int, int], tmp_path: Path) -> None:
    """As that of atoms without an entry in the bond table, which stands where some molecule has such elements."""
    row = {"no_bond_entry": proportion(np.array([True, False]), 0)}
    cards: dict[int, Any] = {
        seed: SimpleNamespace(
            summary={"validity": proportion(np.ones(2, dtype=np.bool_), 0)} | (row if seed else {}),
            samples=range(2),
            failures={},
            definitions=METRICS,
        )
        for seed in seeds
    }
    found = _summary(cards)
    assert (found["mean"], found["std"]) == (
        {"validity": 1, "no_bond_entry": None},
        {"validity": 0, "no_bond_entry": None},
    )
    assert found["seeds"]["1"]["metrics"]["no_bond_entry"]["value"] == 0.5
    _say({"as_sampled": cards}, tmp_path)


def _one_line(stopped: pytest.ExceptionInfo[SystemExit], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def _molecules(*atoms: tuple[list[int], list[list[float]]]) -> Structures:
    return join([Geometry(np.array(kinds), np.array(places)) for kinds, places in atoms], torch.float32)


STRETCHED = ([8, 1, 1], [[0.0, 0.0, 0.0], [1.03, 0.0, 0.0], [-0.2, 1.0, 0.0]])
RADICAL = ([6, 1, 1, 1], [[0.0, 0.0, 0.0], [1.09, 0.0, 0.0], [-0.36, 1.03, 0.0], [-0.36, -0.51, 0.89]])


def test_missing_hydrogens_are_added_at_their_bonds_length() -> None:
    complete = with_hydrogens(_molecules(RADICAL, STRETCHED))
    assert sorted(complete.numbers[0].tolist()) == [1, 1, 1, 1, 6]
    added = (complete.positions[0, 4] - complete.positions[0, 0]).norm()
    assert 1.0 < float(added) < 1.2
    assert complete.numbers[1].tolist() == [8, 1, 1, 0, 0]


def test_steps_along_the_forces_lower_the_energy_of_what_is_chosen_alone() -> None:
    structures = _molecules(RADICAL, STRETCHED)
    plan = RepairPlan(unstable=True, steps=3)
    with closing(XTBForceField(1)) as force_field:
        mended = repair(structures, torch.tensor([1]), plan, force_field.evaluate)
        before, after = force_field.evaluate(structures)[1], force_field.evaluate(mended)[1]
    assert torch.equal(mended.positions[0], structures.positions[0])
    assert after.energy < before.energy
    moved = (mended.positions[1] - structures.positions[1]).norm(dim=1).max()
    assert 0 < float(moved) <= 3 * LONGEST_STEP


def test_only_what_is_asked_for_is_repaired() -> None:
    valid, stable = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    assert RepairPlan(invalid=True).chosen(valid, stable).tolist() == [1]
    assert RepairPlan(unstable=True).chosen(valid, stable).tolist() == [2]
    assert RepairPlan(invalid=True, unstable=True).chosen(valid, stable).tolist() == [1, 2]
    assert not RepairPlan().used
