"""Studies and their steps, and the command line around them."""

import importlib.util
import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from atomrl.config import load_config
from atomrl.training.shaping import OnTheWay
from atomrl.util.errors import UserError
from studies.__main__ import main
from studies.report import _controls
from studies.steps import EvaluationTable, plan
from studies.studies import RETURN_TO_GO, STUDIES, Study, controls, read_settings, whole_numbers
from studies.subjects import MOLECULES

FOLDER = Path("runs/results/molecules")


def load(name):
    return OmegaConf.to_container(OmegaConf.load(str(files("atomrl.conf") / f"experiment/prototypes/{name}.yaml")))


def leaves(name):
    text = (files("atomrl.conf") / f"{name}.yaml").read_text()
    tree = OmegaConf.to_container(OmegaConf.create(text))
    return {
        f"{section}.{key}": value
        for section, values in tree.items()
        for key, value in (values if isinstance(values, dict) else {"": values}).items()
    }


def test_long_configuration_is_the_demo_by_the_policy_gradient_but_for_its_length():
    demo, long = leaves("demo_fed_grpo"), leaves("qm9_long")
    different = {key: long[key] for key in long if demo.get(key) != long[key]}
    assert different == {"dataloader.epoches": 160, "evaluation.samples": 0}
    assert set(demo) <= set(long)


def test_long_crystal_configuration_is_the_demo_but_for_its_length_and_evaluation():
    demo, long = leaves("experiment/prototypes/rl_dng_grpo"), leaves("experiment/prototypes/rl_long")
    assert {key: long[key] for key in long if demo.get(key) != long[key]} == {
        "dataloader.epoches": 160,
        "evaluation.samples": 0,
        "evaluation.relaxed": 200,
        "evaluation.second_judge": "sevennet",
    }
    assert set(demo) <= set(long)


@pytest.mark.parametrize(("whole", "ablation"), [("rl_long", "rl_no_diversity"), ("rl_dng", "rl_dng_no_diversity")])
def test_the_ablation_lacks_the_diversity_components_and_nothing_else(whole, ablation):
    long, ablated = load(whole), load(ablation)
    kept = [part for part in long["reward"]["components"] if "Diversity" not in part["_target_"]]
    assert len(long["reward"]["components"]) - len(kept) == 2
    assert ablated == long | {"reward": long["reward"] | {"components": kept}}


def test_the_longer_run_by_matching_is_the_demo_of_crystals_but_for_its_objective_and_length():
    demo, longer = load("rl_dng"), load("rl_awm")
    options = demo["train"].pop("nft")
    of_nft = {name: options.pop(name) for name in ("self_normalized", "time_weighting")}
    assert (demo["train"].pop("objective"), of_nft) == ("nft", {"self_normalized": False, "time_weighting": "noise"})
    assert longer["train"].pop("awm") == options | {"clip_range": 0.05}
    assert longer["train"].pop("objective") == "awm"
    assert longer == demo | {"dataloader": demo["dataloader"] | {"epoches": 160}}


@pytest.mark.parametrize("name", ["crystals_demo", "crystals_demo_grpo"])
def test_the_ablations_of_the_demos_differ_from_them_in_the_diversity_components_alone(name):
    configs = [load_config(study.config, study.overrides) for study in (STUDIES[name], STUDIES[f"{name}_no_diversity"])]
    demo, ablated = (json.loads(config.model_dump_json()) for config in configs)
    demo["reward"]["components"] = [
        part for part in demo["reward"]["components"] if "Diversity" not in part["_target_"]
    ]
    assert ablated == demo
    assert STUDIES[f"{name}_no_diversity"].beside == name


@pytest.mark.parametrize("study", STUDIES.values(), ids=lambda study: study.name)
def test_settings_agree_with_the_configuration_that_is_trained(study):
    config, settings = load_config(study.config, study.overrides), read_settings(study)
    assert settings.iterations == config.dataloader.epoches
    assert settings.scored == config.dataloader.epoches * config.dataloader.sample_group_size * (
        config.dataloader.each_prompt_sample
    )
    assert (settings.backbone, settings.device) == (config.model.backbone, config.device)
    assert settings.samples == config.evaluation.samples
    assert settings.time_step == (config.evaluation.time_step or config.model.time_step)
    assert settings.places == len(OnTheWay.of(config).scored)


def test_three_ways_to_spend_the_scorings_of_the_demo():
    """Where what a sample is about to become is scored too, the training has fewer samples."""
    demo, plain, shaped, prefix = (
        read_settings(STUDIES[name]) for name in ("demo", "fed_grpo", "fed_grpo_pbrs", "fed_grpo_prefix")
    )
    assert demo.scorings == plain.scorings == shaped.scorings == prefix.scorings == 7680
    assert shaped.bill("molecules") == (
        "1,536 molecules: 12 iterations x 8 groups x 16; with 4 places on the way, 7,680 scorings"
    )
    assert demo.bill("molecules") == "7,680 molecules: 60 iterations x 8 groups x 16"


def test_molecules_trains_three_seeds_and_draws_the_controls_once():
    study = STUDIES["molecules"]
    steps = plan(study, read_settings(study), FOLDER)
    assert [step.name for step in steps.steps] == [
        *("train-0", "evaluate-0", "train-1", "evaluate-1", "train-2", "evaluate-2"),
        *("best-of-4", "best-of-21"),
    ]
    assert 21 * 1000 >= 160 * 8 * 16 > 20 * 1000
    train, evaluate, control = steps.steps[0], steps.steps[1], steps.steps[-1]
    assert train.command == "atomrl train --config-name qm9_long save_path=runs/results/molecules/seed-0 seed=0"
    assert "--trained runs/results/molecules/seed-0 --num-samples 1000 --time-step 50" in evaluate.command
    assert "best-of" not in evaluate.command
    assert "--best-of 21" in control.command
    assert evaluate.after == control.after == ("train-0",)
    assert study.evaluation.seed != load_config("demo").evaluation.seed


def test_demo_evaluates_itself():
    study = STUDIES["demo"]
    steps = plan(study, read_settings(study), FOLDER)
    assert [step.name for step in steps.steps] == ["train-0", "train-1", "train-2"]
    assert all(run.evaluated for run in steps.runs.values())
    assert steps.tables[1] == FOLDER / "seed-1" / "evaluation" / "evaluation.json"


def test_crystals_are_judged_once_more_relaxed_and_by_a_second_judge():
    study = STUDIES["crystals"]
    settings = read_settings(study)
    assert [table.title for table in settings.further] == ["relaxed", "second judge"]
    steps = plan(study, settings, FOLDER)
    assert [n for n, _ in steps.controls] == [4, 52]
    assert 52 * 1000 >= settings.scored == 160 * 10 * 32 > 51 * 1000
    train, evaluate = steps.steps[:2]
    assert train.command == f"atomrl train experiment=prototypes/rl_long save_path={FOLDER}/seed-0 seed=0"
    assert evaluate.output.beside == ("evaluation_relaxed.json", "evaluation_second_judge.json")
    chosen = replace(study, overrides=("evaluation.relaxed=0", "evaluation.second_judge=null"))
    assert read_settings(chosen).further == ()
    demo = STUDIES["crystals_demo"]
    assert read_settings(demo).further == ()
    assert plan(demo, read_settings(demo), FOLDER).tables[2] == FOLDER / "seed-2" / "evaluation" / "evaluation.json"


def test_an_evaluation_is_whole_with_the_tables_beside_it(tmp_path):
    output = EvaluationTable(tmp_path / "evaluation.json", ("evaluation_relaxed.json",))
    (tmp_path / "evaluation.json").touch()
    assert not output.whole()
    (tmp_path / "evaluation_relaxed.json").touch()
    assert output.whole()


def test_a_judge_that_is_not_installed_is_missed_before_the_training(tmp_path, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "sevenn" else found(name))
    with pytest.raises(SystemExit) as ended:
        main(["crystals", "--folder", str(tmp_path / "runs")])
    assert ended.value.code == 2
    assert (
        "pip install 'atomrl[sevennet]', or leave it out with evaluation.second_judge=null" in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())


def test_overrides_reach_training_evaluation_and_budget():
    study = replace(STUDIES["molecules"], overrides=("+device=cpu", "model.backbone=some/folder", "threads=1"))
    steps = plan(study, read_settings(study), FOLDER, jobs=2)
    assert "threads=1" in steps.steps[0].words
    assert steps.steps[0].extra == ()
    assert "--base some/folder" in steps.steps[1].command
    assert "--device cpu" in steps.steps[1].command
    small = replace(STUDIES["molecules"], overrides=("dataloader.epoches=2",))
    assert [n for n, _ in plan(small, read_settings(small), FOLDER).controls] == [4]  # best of 1 is the base


def test_the_budget_counts_what_is_scored_on_the_way():
    study = replace(STUDIES["molecules"], overrides=(*RETURN_TO_GO, "dataloader.epoches=20"))
    settings = read_settings(study)
    assert [n for n, _ in plan(study, settings, FOLDER).controls] == [4, 13]
    result = SimpleNamespace(base=SimpleNamespace(samples=1000))
    said = _controls(study.subject, settings, plan(study, settings, FOLDER), result)
    assert "training scores its 2,560 molecules 12,800 times, at the end of a walk and on the way, so the" in said
    assert "N = ceil(12,800 / 1,000) = 13" in said


@pytest.mark.parametrize(
    "study", [study for study in STUDIES.values() if study.overrides], ids=lambda study: study.name
)
def test_a_study_trains_with_its_own_overrides_and_then_with_the_users(study, tmp_path, monkeypatch, capsys):
    queued = []

    def queue(steps, folder, jobs):
        queued.extend(steps)
        raise UserError("nothing is trained here")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("studies.__main__.Queue", queue)
    with pytest.raises(SystemExit):
        main([study.name, "dataloader.epoches=7", "--seeds", "1"])
    assert "nothing is trained here" in capsys.readouterr().err
    (step,) = queued
    own = step.words.index(study.overrides[0])
    assert step.words[own:] == (*study.overrides, "dataloader.epoches=7")


def test_threads_are_shared_among_jobs_and_are_no_other_setting(monkeypatch):
    monkeypatch.setattr("studies.steps.cores", lambda: 4)
    study = STUDIES["molecules"]
    one, two = (plan(study, read_settings(study), FOLDER, jobs).steps[0] for jobs in (1, 2))
    assert (one.extra, two.extra) == ((), ("threads=2",))
    assert one.command == two.command


@pytest.mark.parametrize(
    "override", ["seed=1", "++save_path=x", "resume=true", "experiment=demo", "evaluation.samples=4"]
)
def test_what_the_queue_sets_is_refused(override):
    with pytest.raises(UserError, match=r"queue sets|is evaluated by"):
        replace(STUDIES["molecules"], overrides=(override,))


def test_bad_counts_and_seeds():
    with pytest.raises(UserError, match=r"dataloader=\{: cannot be read"):
        read_settings(replace(STUDIES["demo"], overrides=("dataloader={",)))
    with pytest.raises(UserError, match=r"dataloader\.epoches=many"):
        read_settings(Study("x", "demo", MOLECULES, overrides=("dataloader.epoches=many",)))
    for override in ("evaluation.samples=0", "early_stop_metric=reward"):
        with pytest.raises(UserError, match=f"^{override}: .*leave it out$"):
            read_settings(replace(STUDIES["demo"], overrides=(override,)))
    with pytest.raises(UserError, match=r"uniform_stride=0: must be at least 1"):
        read_settings(replace(STUDIES["demo"], overrides=("reward.shaping.scheduler.uniform_stride=0",)))
    with pytest.raises(UserError, match="different whole numbers"):
        Study("x", "demo", MOLECULES, seeds=(1, 1))
    with pytest.raises(UserError, match="whole numbers with commas"):
        whole_numbers("0,one", "--seeds")
    with pytest.raises(UserError, match="numbers above 1"):
        controls(["1"])
    assert controls(["4", "budget"]) == (4, None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["crystal"], "give one study of molecules, demo"),
        (["demo", "molecules"], "give one study"),
        (["demo", "--samples", "4"], "evaluated by `atomrl train` itself"),
        (["--samples", "0"], "--samples 0: must be at least 1"),
        (["--only-report", "--folder", "nowhere", "--docs", "nowhere"], "run the queue without --only-report"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
