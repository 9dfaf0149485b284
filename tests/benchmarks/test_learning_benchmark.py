"""The learning benchmark: what it reads from logs is what stands in them, and its parts run."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from atomrl.config import load_config
from atomrl.config.molecules import MoleculeConfig
from atomrl.core.records import RewardTable
from atomrl.training.requirements import check_code
from atomrl.training.rl_module import build_module
from benchmarks import __main__ as benchmarks
from benchmarks import best_of_draws
from benchmarks.learning import Lines, Pace, learn
from benchmarks.learning_arms import COMPARISONS, Arm
from benchmarks.learning_curves import Chosen, Curve, mean_curve, read_curve
from benchmarks.learning_table import pays_from, table
from benchmarks.network_calls import calls_per_sample
from studies.queue import StepFailedError
from studies.records import commit

MOLECULES = COMPARISONS["molecules"]
ABLATION = COMPARISONS["ablation"]
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
        config = load_config(arm.config, [*comparison.overrides(arm), "evaluation.samples=0"])
        check_code(config)
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
    assert len(different) == {"seeds": 0, "ablation": 2}.get(name, 1)  # the policy gradient; novelty, paid otherwise


def curve(values, seed=0, shares=(90, math.nan), gradient=1.5):
    scorings = 100 * np.arange(1.0, len(values) + 1)
    values, shares = (np.array(numbers, dtype=float) for numbers in (values, shares))
    return Curve(Arm("one", "demo"), seed, values, scorings, shares, 60.0, gradient, 2.0)


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
    lost = curve([80] * 9 + [math.nan])  # no sample of the last iteration has a score
    assert pays_from(lost, chosen(n1=20, n4=70), MOLECULES) == "unknown"


def test_the_table_says_what_was_not_reached():
    rows = table([curve([10, 20, 30, 40, 50])], chosen(n2=30, n4=71), replace(MOLECULES, iterations=5))
    assert "scorings to best of 2 (30, %)" in rows[0]
    assert rows[2].startswith("| one, seed 0 | 30 | 30 | 90 | not logged | 500 | not reached | 500 | 30,000 | 1.5 |")
    assert [row.split("|")[1].strip() for row in rows[3:]] == ["best of 2", "best of 4"]
    assert len({row.count("|") for row in rows}) == 1
    gap = table([curve([10, math.nan, *[70] * 5, 20])], chosen(n2=30), MOLECULES)  # an iteration without a score
    assert gap[2].startswith("| one, seed 0 (failed after 8 of 40 iterations) | 60 | 70 | 90 |")


def test_several_seeds_of_an_arm_have_a_row_of_their_mean_curve():
    """Which reaches 30 only at the end, where one seed does earlier and the other never."""
    seeds = [curve([40] * 6, 0, (90, 50)), curve([10] * 5 + [70], 3, (70, 60), 8.0)]
    rows = table(seeds, chosen(n2=30), replace(MOLECULES, iterations=6))
    assert [row.split("|")[1].strip() for row in rows[2:5]] == ["one, mean of 2 seeds", "one, seed 0", "one, seed 3"]
    assert rows[2].startswith("| one, mean of 2 seeds | 31 | 31 | 80 | 55 | 600 | 600 | 36,000 | 8 |")
    shorter = mean_curve([seeds[0], curve([20] * 4, 3)])
    assert (shorter.values.tolist(), shorter.scorings.tolist()) == ([30] * 4, [100, 200, 300, 400])


def test_the_shares_beside_the_measure_are_means_of_the_last_five_iterations(tmp_path):
    shared = {"seconds_rollout": 1, "seconds_update": 1, "grad_norm": 1, "validity_x_uniqueness": 0.5}
    rows = [{**shared, "stability": 0.5, "novel": novel} for novel in (0, 0.25, 0.25, None, 0.75, 0.75)]
    folder = tmp_path / "DiffusionNFT-7"
    folder.mkdir()
    (folder / "calls.json").write_text('{"calls": 1}')
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_curve(MOLECULES.arms[0], 7, MOLECULES, tmp_path).shares.tolist() == [50, 50]


def test_novelty_without_pay_is_logged_and_teaches_nothing():
    (arm,) = (arm for arm in ABLATION.arms if arm.name == "no pay for novelty")
    small = ["model.time_step=3", "dataloader.sample_group_size=2", "dataloader.each_prompt_sample=2"]
    taught = []
    for words in (arm.overrides, ["reward.components=[]"]):
        module, _ = build_module(load_config("demo", [*small, "reward.workers=1", "log.rdkit=false", *words]))
        try:
            rewards, advantages = module.compute_rewards(module.rollout(module.plan.prompts(0))[0])
        finally:
            module.close()
        taught.append(advantages.total)
        assert ("novel" in rewards.diagnostics) == (words is arm.overrides)
    assert taught[0].tolist() == taught[1].tolist()


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
    """Here by their size, which all draws of a group share: of 4 draws 3 are twins, and of one that is kept none.

    A stage counts them, as one counts mSUN of crystals.
    """
    words = [*SMALL[:3], "dataloader.each_prompt_sample=4", "log.rdkit=false"]
    module, _ = build_module(load_config("demo", words))
    asked = []

    def score(structures, prompts):
        asked.append(len(structures))
        atoms = structures.sizes.double()
        channels = dict.fromkeys(("force", "energy", "stability", "novelty"), atoms)
        return RewardTable(channels, (None,) * len(atoms), diagnostics={"reward": atoms})

    def count(table, samples):
        sizes = samples.structures.sizes.tolist()
        unique = torch.tensor([size not in sizes[:row] for row, size in enumerate(sizes)], dtype=torch.float64)
        return replace(table, diagnostics={**table.diagnostics, "unique": unique})

    try:
        monkeypatch.setattr(module, "stages", (*module.stages, count))
        monkeypatch.setattr(module.scorer.reward, "scope", "per_batch")
        monkeypatch.setattr(module.scorer.reward, "score", score)
        found = best_of_draws.best(module, 0, "unique", [1, 2, 4])
    finally:
        module.close()
    groups = len(set(module.plan.prompts(0).sizes.tolist()))
    assert found == {1: groups / 8, 2: groups / 4, 4: groups / 2}
    assert asked == [8, 4, 2]  # the best of one are all samples, whose scores are known


def test_a_batch_without_a_score_has_no_measure():
    """So it is with crystals of which no cell is sound; a measure that a scored sample lacks is a mistake."""
    failed = RewardTable({"energy": torch.full((2,), torch.nan)}, ("overlap",) * 2)
    assert best_of_draws.measured(failed, "msun").isnan().tolist() == [True, True]
    with pytest.raises(KeyError):
        best_of_draws.measured(replace(failed, reasons=("overlap", None)), "msun")


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
            ["learning", "--of", "crystals", "--arms", "AWM,awm,x"],
            "error: --arms awm,x: the arms of crystals are DiffusionNFT, AWM, rejection fine-tuning, policy gradient",
        ),
        (["stability", "--arms", "AWM"], "--arms: learning alone would read that; leave it out"),
        (
            ["learning", "--turns", "7", "--clock", "cpu"],
            "--turns, --clock: the other parts alone would read that; leave it out",
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


@pytest.mark.parametrize(
    ("jobs", "threads", "words"), [(0, None, ()), (1, None, ()), (1, 3, ("threads=3",)), (99, None, ("threads=1",))]
)
def test_threads_of_a_step(jobs, threads, words):
    assert Pace(jobs, threads).words() == words


def done(arm, seed, folder):
    """A whole run of the ablation, as far as the benchmark looks at it."""
    run = folder / "ablation" / f"{arm.folder}-{seed}"
    run.mkdir(parents=True)
    (run / "checkpoint_latest.pth").touch()
    (run / "calls.json").write_text('{"calls": 1}')
    row = {"seconds_rollout": 1, "seconds_update": 1, "grad_norm": 1, "stability": 0.5 + seed / 100, "novel": 0.25}
    rows = (json.dumps({"iteration": iteration, **row}) + "\n" for iteration in range(ABLATION.iterations))
    (run / "metrics.jsonl").write_text("".join(rows))


def test_a_report_lists_the_arms_that_it_was_asked_for_with_all_their_seeds(tmp_path, capsys):
    """Of runs that are there: nothing is trained."""
    one, other = ABLATION.arms[3], ABLATION.arms[1]
    for arm, seed in ((one, 0), (one, 2), (other, 0), (ABLATION.arms[0], 0)):
        done(arm, seed, tmp_path)
    rows = list(learn("ablation", tmp_path, tmp_path, (0,), Pace(1), names=(one.name, other.name)))
    arms = [row.split("|")[1].strip() for row in rows[2:]]
    assert arms == [
        f"{other.name}, seed 0",
        *(f"{one.name}, {which}" for which in ("mean of 2 seeds", "seed 0", "seed 2")),
    ]
    report = (tmp_path / "learning_ablation.md").read_text()
    assert f"--seeds 0 --arms '{one.name},{other.name}'`" in report
    assert f"Several seeds: {one.name} (0, 2); the other arms have one." in report
    assert f"Trained by earlier commands: {one.name}, seed 2." in report
    assert "| 51 | 51 | not logged | 25 |" in rows[3]
    assert "starts" not in capsys.readouterr().out
    list(learn("ablation", tmp_path, tmp_path, (0,), Pace(1), names=(other.name,)))
    assert "\nEach arm has one seed.\n" in (tmp_path / "learning_ablation.md").read_text()


def test_a_training_that_fails_keeps_no_other_from_the_report(tmp_path, capsys):
    """Its row says how far it came, and one that did not come through an iteration has no row."""
    early, never, whole = ABLATION.arms[1:4]
    for arm in (early, never, whole):
        done(arm, 0, tmp_path)
    log = tmp_path / "ablation" / f"{early.folder}-0" / "metrics.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:3]))
    (log.parents[1] / f"{never.folder}-0" / "metrics.jsonl").unlink()
    rows = learn("ablation", tmp_path, tmp_path, (0,), Pace(1), names=(early.name, never.name, whole.name))
    found = []
    with pytest.raises(StepFailedError, match=f"{early.folder}-0 failed with .*; {never.folder}-0 failed with "):
        found.extend(rows)
    names = [row.split("|")[1].strip() for row in found[2:]]
    assert names == [f"{early.name}, seed 0 (failed after 3 of 20 iterations)", f"{whole.name}, seed 0"]
    assert "\n".join(found) in (tmp_path / "learning_ablation.md").read_text()
