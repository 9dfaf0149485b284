"""The learning benchmark: what it reads from logs is what stands in them, and its parts run."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from atomrl.config import load_config
from atomrl.config.molecules import MoleculeConfig
from atomrl.core.records import RewardTable
from atomrl.training.rl_module import build_module
from benchmarks import __main__ as benchmarks
from benchmarks import best_of_draws
from benchmarks.learning import Lines
from benchmarks.learning_arms import COMPARISONS, Arm
from benchmarks.learning_curves import Chosen, Curve
from benchmarks.learning_table import pays_from, table
from benchmarks.network_calls import calls_per_sample
from studies.records import commit

MOLECULES = COMPARISONS["molecules"]
SMALL = [
    "dataloader.sample_group_size=2",
    "dataloader.each_prompt_sample=2",
    "model.time_step=3",
    "reward.type=dummy",
    "reward.components=[]",
    "log.rdkit=false",
    "train.stability_adv_weight=0",
    "train.num_inner_batch=null",
]


@pytest.mark.parametrize("name", COMPARISONS)
def test_arms_are_trainings_of_the_same_prompts(name):
    comparison = COMPARISONS[name]
    assert len({arm.folder for arm in comparison.arms}) == len(comparison.arms)
    for arm in comparison.arms:
        config = load_config(arm.config, comparison.overrides(arm))
        assert config.dataloader.sample_group_size * config.dataloader.each_prompt_sample == comparison.samples
        assert config.dataloader.epoches == comparison.iterations


def paid(config):
    """The reward, and of molecules the weights of its channels; components of crystals have theirs in the reward."""
    return config.reward, config.channel_weights if isinstance(config, MoleculeConfig) else None


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_reward_that_the_first_arm_does_not_have_is_named(name):
    comparison = COMPARISONS[name]
    first, *others = (paid(load_config(arm.config, comparison.overrides(arm))) for arm in comparison.arms)
    different = [arm for arm, found in zip(comparison.arms[1:], others, strict=True) if found != first]
    for arm in different:
        by_its_yaml = f"{arm.name} by that of `{arm.config.rpartition('/')[2]}`"
        assert by_its_yaml in comparison.about or any(word.startswith("reward.") for word in arm.overrides)
    assert len(different) == (name != "seeds")  # the policy gradient; and what is not paid for novelty


def curve(values, better="higher"):
    scorings = 100 * np.arange(1.0, len(values) + 1)
    return Curve(Arm("one", "demo"), 0, np.array(values, dtype=float), scorings, 60.0, 1.5, 2.0)


def test_a_level_is_reached_by_the_mean_of_five_iterations():
    rising = curve([0, 90, 0, 0, 0, 50, 60, 70, 80, 90])
    assert rising.scorings_to(50, "higher") == 900  # of 40 50 60 70 80 in iterations 5 to 9: 52
    assert rising.scorings_to(95, "higher") == float("inf")
    falling = curve([5, 4, 3, 2, 1, 1])
    assert falling.scorings_to(3.1, "lower") == 500
    assert curve([7]).scorings_to(7, "higher") == 100


def chosen(**values):
    """`n4=71`: the best of 4 have 71."""
    return [Chosen(f"best of {name[1:]}", value, int(name[1:]), 50) for name, value in values.items()]


def test_break_even_is_the_budget_over_the_n_that_is_as_good():
    trained = curve([80] * 10)  # 1,000 scorings
    assert pays_from(trained, chosen(n1=20, n4=70, n8=80, n16=95), MOLECULES) == "125 samples"
    assert pays_from(trained, chosen(n1=20, n4=70), MOLECULES) == "fewer than 250 samples"
    assert pays_from(trained, [], MOLECULES) == ""


def test_the_table_says_what_was_not_reached():
    rows = table([curve([10, 20, 30, 40, 50])], chosen(n2=30, n4=71), MOLECULES)
    assert "scorings to best of 2 (30, %)" in rows[0]
    assert rows[2].startswith("| one, seed 0 | 30 | 30 | 500 | not reached | 500 | 30,000 | 1.5 |")
    assert [row.split("|")[1].strip() for row in rows[3:]] == ["best of 2", "best of 4"]


def test_what_a_choice_costs():
    assert best_of_draws.cost("8", 50) == (8, 400)
    assert best_of_draws.cost("steered 4", 50) == (4 * (1 + 3), 200)


def test_a_line_that_a_kill_cut_short_does_not_count(tmp_path):
    lines = Lines(tmp_path / "lines", 2)
    assert lines.share() == 0
    lines.path.write_text('{"iteration": 0}\n{"iter')
    assert lines.share() == 0.5
    assert not lines.whole()


@pytest.mark.parametrize(
    ("objective", "update"),
    [
        (["train.nft.times=3", "train.nft.reference_weight=0"], 3 * 2),
        (["train.nft.times=3", "train.nft.reference_weight=0.1"], 3 * 3),
        (["train.objective=awm", "train.awm.times=2", "train.epoch_per_rollout=2"], 2 * 2 * 2),
    ],
)
def test_calls_of_the_network_are_counted(objective, update):
    walk = 3 + 1  # one per transition, one to decode
    assert calls_per_sample("demo", [*SMALL, *objective]) == walk + update


def test_the_best_of_one_is_the_mean_and_of_all_the_best_of_each_group():
    module, _ = build_module(load_config("demo", [*SMALL[:3], "dataloader.each_prompt_sample=4", "log.rdkit=false"]))
    try:
        found = best_of_draws.best(module, 0, "reward", [1, 2, 4])
        generated, _ = module.rollout(module.plan.prompts(0))
        rewards = module.compute_rewards(generated)[0].diagnostics["reward"].reshape(2, 4)
    finally:
        module.close()
    assert found[1] == pytest.approx(float(rewards.nanmean()))
    best = rewards.nan_to_num(-math.inf).amax(1)
    assert found[4] == pytest.approx(float(best[best.isfinite()].mean()))
    assert found[1] <= found[2] <= found[4]


def test_what_compares_samples_compares_those_that_are_kept(monkeypatch):
    """Here by their size, which all draws of a group share: of 4 draws 3 are twins, and of one that is kept none."""
    words = [*SMALL[:3], "dataloader.each_prompt_sample=4", "log.rdkit=false"]
    module, _ = build_module(load_config("demo", words))
    asked = []

    def score(structures, prompts):
        asked.append(len(structures))
        atoms = structures.sizes.double()
        first = [int(size) not in atoms[:row].int().tolist() for row, size in enumerate(atoms)]
        unique = torch.tensor(first, dtype=torch.float64)
        channels = dict.fromkeys(("force", "energy", "stability", "novelty"), atoms)
        return RewardTable(channels, (None,) * len(atoms), diagnostics={"unique": unique, "reward": atoms})

    try:
        monkeypatch.setattr(module.scorer.reward, "scope", "per_batch")
        monkeypatch.setattr(module.scorer.reward, "score", score)
        found = best_of_draws.best(module, 0, "unique", [1, 2, 4])
    finally:
        module.close()
    groups = len(set(module.plan.prompts(0).sizes.tolist()))
    assert found == {1: groups / 8, 2: groups / 4, 4: groups / 2}
    assert asked == [8, 4, 2]  # the best of one are all samples, whose scores are known


def test_steered_particles_end_as_one_sample_of_each_group():
    words = ["reward.workers=1", "dataloader.each_prompt_sample=4"]
    module, _ = build_module(load_config("demo", [*SMALL[:1], "model.time_step=6", "log.rdkit=false", *words]))
    try:
        share = best_of_draws.steered(module, 0, "stability", 2)
    finally:
        module.close()
    assert share in (0, 0.5, 1)  # of two groups


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["learning", "--seeds", "x"], "--seeds x: give whole numbers"),
        (["learning", "edm"], "run it alone"),
        (["learning", "--jobs", "0", "--folder", "unused"], "--jobs 0: must be at least 1"),
        (
            ["learning", "--threads", "77", "--clock", "cpu"],
            "--threads, --clock: the other parts alone would read that; leave it out",
        ),
        (["stability", "--seeds", "1"], "--seeds: learning alone would read that; leave it out"),
    ],
)
def test_a_mistake_is_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    with pytest.raises(SystemExit) as ended:
        benchmarks.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("more", "folder"), [([], "runs/learning"), (["--quick"], "runs/learning-quick")])
def test_a_quick_run_stays_away_from_the_published_tables(more, folder, monkeypatch):
    """And from the runs that they are made of."""
    asked = []
    monkeypatch.setattr(benchmarks.learning, "learn", lambda *words: asked.append(words) or [])
    monkeypatch.setattr(sys, "argv", ["benchmarks", "learning", *more])
    benchmarks.main()
    ((name, runs, docs, *_),) = asked
    assert (name, runs) == ("molecules", Path(folder))
    assert docs == (Path(folder) if more else Path(benchmarks.__file__).parents[1] / "docs" / "results")


def test_the_command_runs_goes_on_and_refuses_company(tmp_path, monkeypatch, capsys):
    words = ["benchmarks", "learning", "--quick", "--jobs", "2", "--folder", str(tmp_path), "--docs", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    benchmarks.main()
    report, plot = ((tmp_path / f"learning_molecules.{kind}").read_text() for kind in ("md", "svg"))
    assert "| DiffusionNFT, seed 0 |" in report
    assert "Written by `python -m benchmarks learning --of molecules --seeds 0 --quick`: " in report
    assert f"Commit {commit()}." in report
    assert "best of 1" in report
    assert 'id="DiffusionNFT-0-scorings"' in plot
    (tmp_path / "molecules" / "best_of.jsonl").write_text(
        json.dumps({"iteration": 0, "1": 0.5, "2": 0.5, "steered 2": 1.0}) + "\n"
    )
    benchmarks.main()
    said = capsys.readouterr().out
    assert "DiffusionNFT-0 done before" in said
    assert "best-of done" in said
    monkeypatch.setattr(sys, "argv", ["benchmarks", "learning", "edm"])
    with pytest.raises(SystemExit) as ended:
        benchmarks.main()
    assert ended.value.code == 2
