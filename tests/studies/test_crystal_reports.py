"""Reports of crystal studies from evaluations made by hand: further tables, and an ablation beside its study.

A study through the whole queue would spend most of a minute on loading CHGNet and pymatgen in three processes; what
ties the reports to a real run is tested alone, the names in the log and the files of an evaluation.
"""

import json
import xml.etree.ElementTree as ET
from dataclasses import astuple, replace

import numpy as np
import pytest
from crystal_samples import ROCK_SALT
from hand_made import column, evaluation

from atomrl.checkpoints.folder import CONFIG
from atomrl.checkpoints.named import LATEST
from atomrl.config import load_config, to_yaml
from atomrl.evaluation.crystal_monitor import CrystalMonitor
from atomrl.evaluation.crystals import METRICS, PROFILE, evaluate_crystals
from atomrl.evaluation.evaluate import SamplePlan, compare
from atomrl.evaluation.molecules import METRICS as MOLECULE_METRICS
from atomrl.evaluation.panel import Judged
from atomrl.evaluation.sample_table import SAMPLE_ID, SampleColumn
from atomrl.measures.crystal_verdicts import MATCHING, PHYSICS, CrystalVerdicts
from atomrl.rewards.components import CreativityReward
from atomrl.structures.crystals import from_pymatgen
from atomrl.util.errors import UserError
from studies import recorded
from studies.__main__ import main
from studies.steps import EvaluationTable, plan
from studies.studies import STUDIES, read_settings
from studies.subjects import CRYSTALS, MOLECULES
from studies.tables import SeedResult

DEFINITIONS = {name: astuple(definition) for name, definition in METRICS.items()}
FEATURES = ("structure_diversity", "composition_diversity")
ELEMENTS = {"base": {"Na": 30, "Cl": 30}, "trained": {"Na": 45, "Cl": 15}}


def around(value):
    return (value, value - 0.02, value + 0.02)


def table(msun, unique, **more):
    """A table whose base has 10 % mSUN and 90 % unique; msun and unique: of the other columns, by name."""
    values = {"base": {"msun": around(0.1), "unique": around(0.9)}}
    values |= {name: {"msun": around(msun[name]), "unique": around(unique)} for name in msun}
    failures = {"geometry": {"overlap": 4}, "e_above_hull": {}}
    columns = {
        name: column(elements=ELEMENTS.get(name, ELEMENTS["base"]), failures=failures, seeds=[2_000_003])
        for name in values
    }
    known = {name: metric for name, metric in DEFINITIONS.items() if not more.get("bare") or name not in FEATURES}
    given = {
        "profile": PROFILE,
        "evaluator": more.get("judge", "chgnet"),
        "conditions": {"geometry": more.get("geometry", "as sampled")},
        "rewarded": ["msun", "unique"],
    }
    return evaluation(values, columns, known, **given)


def save(folder, msun, unique):
    """The three tables of one evaluation; of the relaxed samples 10 %, by the second judge 20 % less are mSUN."""
    folder.mkdir(parents=True)
    main_table = table(msun, unique)
    relaxed = table({k: v - 0.1 for k, v in msun.items()}, unique, geometry="relaxed by CHGNet", bare=True)
    second = table({k: v - 0.2 for k, v in msun.items()}, unique, judge="sevennet-0", bare=True)
    for name, made in (("", main_table), ("_relaxed", relaxed), ("_second_judge", second)):
        (folder / f"evaluation{name}.json").write_text(json.dumps(made))


def record(run, study, *words):
    """What a run of a study writes down of its settings."""
    (run / CONFIG).write_text(to_yaml(load_config(STUDIES[study].config, [*STUDIES[study].overrides, *words])))


@pytest.fixture
def runs(tmp_path):
    """Two seeds of `crystals` with its controls, and of its ablation, which loses uniqueness on seed 1."""
    logged = {panel.key: 0.5 for panel in CRYSTALS.panels}
    for study, unique in (("crystals", (0.9, 0.9)), ("crystals_no_diversity", (0.88, 0.2))):
        folder = tmp_path / "runs" / study
        for seed in (0, 1):
            save(folder / f"evaluation-{seed}", {"trained": 0.4 + 0.1 * seed}, unique[seed])
            run = folder / f"seed-{seed}"
            run.mkdir()
            times = {"seconds_rollout": 60, "seconds_update": 60}
            record(run, study)
            (run / "metrics.jsonl").write_text(json.dumps({"iteration": 0, **logged, **times}) + "\n")
    for n in (4, 52):
        folder = tmp_path / "runs" / "crystals" / f"best-of-{n}"
        save(folder, {f"base best of {n}": 0.3, "trained": 0.4}, 0.9)
    return tmp_path / "runs"


def report(runs, study, *words):
    docs = runs.parent / "docs"
    main([study, "--only-report", "--seeds", "0,1", "--folder", str(runs), "--docs", str(docs), *words])
    return (docs / f"{study}.md").read_text()


def part(page, heading):
    """Rows of the first table below a heading, as {first cell: {head: cell}}."""
    lines = page.partition(f"{heading}\n")[2].splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("|"))
    cells = [
        line.strip("|").split("|") for line in lines[start : lines.index("", start)] if not line.startswith("| ---")
    ]
    head, *rows = [[cell.strip() for cell in line] for line in cells]
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def test_what_the_descriptions_name_is_measured():
    assert set(CRYSTALS.cost) <= set(METRICS)
    assert set(MOLECULES.cost) <= set(MOLECULE_METRICS)
    logged = {"failed", *MATCHING, *PHYSICS, *CrystalMonitor().measure(from_pymatgen([ROCK_SALT]))}
    assert {panel.key for panel in CRYSTALS.panels} <= {*logged, f"raw_{CreativityReward().name}"}


def judged(unique, titles):
    """Four crystals of an evaluation, of which so many are unique; in every further table one less."""

    def metrics(count):
        yes, none = np.ones(4, dtype=bool), (None,) * 4
        verdicts = CrystalVerdicts(
            *(("NaCl",) * 4, np.full(4, 2), {11: 4, 17: 4}, yes, yes, np.arange(4) < count, yes),
            *(np.zeros(4), np.zeros(4), yes, {}, {"geometry": none, "matching": none}),
        )
        return evaluate_crystals(verdicts, evaluator="fake", novelty_set="none", resamples=50)

    return Judged(metrics(unique), None, {title: metrics(unique - 1) for title in titles})


class NoFiles:
    """Stands for the panel, which writes the samples."""

    def write(self, folder, name, judged):
        pass

    def draw(self, folder, judged):
        pass

    def columns(self, judged):
        return {SAMPLE_ID: SampleColumn([f"{row}" for row in range(len(judged.metrics.samples))], "number")}


def test_an_evaluation_leaves_the_files_that_a_study_waits_for(tmp_path):
    titles = [table.title for table in CRYSTALS.further]
    output = EvaluationTable(tmp_path / "evaluation.json", tuple(table.file for table in CRYSTALS.further))
    both = {"base": judged(2, titles), "trained": judged(4, titles)}
    compare(both, {"msun"}, NoFiles(), SamplePlan(9, 50, 7), "command", tmp_path)
    assert output.whole()
    for table in CRYSTALS.further:
        result = SeedResult.read({0: tmp_path / table.file}, ())
        assert [column.estimates["unique"].value for column in (result.base, *result.trained)] == [0.25, 0.75]
        assert result.rewarded == {"msun"}
    assert SeedResult.read({0: output.path}, ()).base.estimates["unique"].value == 0.5
    compare({"base": judged(2, [])}, set(), NoFiles(), SamplePlan(9, 50, 7), "command", tmp_path)
    assert sorted(path.name for path in tmp_path.glob("evaluation*.json")) == ["evaluation.json"]  # of these samples


def test_report_of_crystals(runs):
    page = report(runs, "crystals")
    assert "molecule" not in page
    assert "each training scored 51,200 crystals: 160 iterations x 10 groups x 32" in page
    assert f"profile `{PROFILE}`, energies above hull by chgnet" in page
    assert "time in rollouts and updates by seed: 0: 2 min, 1: 2 min" in page
    main_row = part(page, "## Before and after")["mSUN (metastable, unique, novel) ↑, %"]
    assert main_row["base"] == "10.0 [8.0, 12.0]"
    assert main_row["best of 52"] == "30.0 [28.0, 32.0]"
    assert main_row["seeds apart from best of 52"] == "better: 2 of 2"
    assert "structure diversity, 1 / (1 + Fréchet) ↑" in part(page, "## Before and after")
    cost = part(page, "## What it cost")
    assert cost["share of Na atoms, %"]["seed 1"] == "75.00"
    assert cost["atoms per crystal, mean"]["base"] == "15.00"
    assert cost["geometry: overlap, crystals"]["seed 0"] == "4"
    assert "unique ↑, %" in cost
    curves = {element.get("id") for element in ET.parse(runs.parent / "docs" / "crystals.svg").getroot().iter()}
    assert {f"{panel.key}-seed-1" for panel in CRYSTALS.panels} <= curves


def test_a_report_says_what_the_runs_did_whatever_the_yaml_has_become(runs):
    page = report(runs, "crystals_no_diversity")
    assert "would train otherwise today" not in page
    for seed in (0, 1):
        record(runs / "crystals_no_diversity" / f"seed-{seed}", "crystals_no_diversity", "dataloader.epoches=80")
    page = report(runs, "crystals_no_diversity")
    assert "each training scored 25,600 crystals: 80 iterations x 10 groups x 32" in page
    assert "would train otherwise today: dataloader.epoches (80: seed 0; 160: today's YAML)" in page
    assert "not alike" not in page


def test_a_report_of_a_yaml_that_is_refused_today(runs, monkeypatch):
    def refused(*_):
        raise UserError("no such key")

    monkeypatch.setattr("studies.recorded.load_config", refused)
    page = report(runs, "crystals_no_diversity")
    assert (
        "`experiment/prototypes/rl_no_diversity.yaml` would train otherwise today: it is refused (no such key)" in page
    )
    assert "each training scored 51,200 crystals" in page


def test_a_model_of_the_hub_has_the_name_that_the_queue_gave(runs):
    """A run notes its commit; the commands of the queue, by which its records are found, do not have it."""
    study = STUDIES["crystals_no_diversity"]
    study = replace(study, seeds=(0,), overrides=(*study.overrides, "model.backbone=hub:me/net"))
    now = read_settings(study)
    planned = plan(study, now, runs / study.name)
    record(runs / study.name / "seed-0", study.name, f"model.backbone=hub:me/net@{'a' * 40}")
    assert recorded.settings(study, planned).backbone == now.backbone == "hub:me/net"
    record(runs / study.name / "seed-0", study.name, "model.backbone=another")
    assert recorded.settings(study, planned).backbone == "another"


def test_runs_that_were_not_trained_alike(runs, monkeypatch, capsys):
    """The queue refuses them, and what is to come under another YAML; a report names them."""
    study, seeds = "crystals_no_diversity", [runs / "crystals_no_diversity" / f"seed-{seed}" for seed in (0, 1)]
    record(seeds[1], study, "train.kl_weight=0.5", "threads=1")
    said = "train.kl_weight (1.0: seed 0; 0.5: seed 1)"
    assert f"**the trainings were not alike**, the settings here are those of seed 0: {said}\n" in report(runs, study)
    for seed in seeds:
        (seed / LATEST).touch()
    monkeypatch.setattr("studies.__main__._check_packages", lambda _: None)
    monkeypatch.setattr("studies.__main__.Queue", lambda *_: pytest.fail("it began"))
    command = [study, "--folder", str(runs), "--docs", str(runs.parent / "unused")]
    for given, named in [
        (["--seeds", "0,1"], "train.kl_weight (1.0: seed 0, today's YAML; 0.5: seed 1): give the settings"),
        (["--seeds", "1,2"], "train.kl_weight (0.5: seed 1; 1.0: today's YAML)"),
    ]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*command, *given])
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert f"the runs of the study {study} differ in {named}" in error
        assert error.count("\n") == 1


def test_a_run_without_its_configuration_is_named(runs, capsys):
    (runs / "crystals" / "seed-1" / CONFIG).unlink()
    with pytest.raises(SystemExit):
        report(runs, "crystals")
    assert f"seed-1/{CONFIG}: no such file; run the queue without --only-report" in capsys.readouterr().err


def test_relaxed_samples_and_second_judge_of_every_seed(runs):
    page = report(runs, "crystals")
    name = "mSUN (metastable, unique, novel) ↑, %"
    relaxed = part(page, "## Relaxed by the training's force field")
    assert "- geometry: relaxed by CHGNet" in page
    assert relaxed[name]["trained, mean of 2 seeds"].startswith("35.0 ")
    assert not [row for row in relaxed if "diversity" in row]  # nobody measured it again
    second = part(page, "## By a second judge")
    assert "100 crystals a column; energies above hull by sevennet-0" in page
    assert second[name]["best of 4"] == "10.0 [8.0, 12.0]"
    assert second[name]["seeds apart from base"] == "better: 2 of 2"
    each = part(page, "### By a second judge")
    assert each[name]["seed 1"] == "30.0 [28.0, 32.0] / 100 samples"
    assert part(page, "### Relaxed by the training's force field")[name]["seed 0"] == "30.0 [28.0, 32.0] / 100 samples"
    assert part(page, "Without an answer:")["geometry: overlap, crystals"]["seed 1"] == "4"


def test_a_further_table_that_is_not_there(runs, capsys):
    (runs / "crystals" / "evaluation-1" / "evaluation_relaxed.json").unlink()
    with pytest.raises(SystemExit):
        report(runs, "crystals")
    assert "evaluation_relaxed.json: no such file" in capsys.readouterr().err
    page = report(runs, "crystals", "evaluation.relaxed=0")
    assert "## Relaxed" not in page
    assert "## By a second judge" in page


def test_the_ablation_stands_beside_its_study(runs):
    page = report(runs, "crystals_no_diversity")
    rows = part(page, "## Beside study `crystals`")
    unique = rows["unique ↑, %"]
    assert unique["base"] == "90.0 [88.0, 92.0]"
    assert unique["`crystals`"] == "90.0"  # no spread between its seeds
    assert unique["`crystals_no_diversity`"].startswith("54.0 ")
    assert unique["seeds of `crystals_no_diversity` apart"] == "worse: 1 of 2"
    assert rows["novel ↑, %"]["seeds of `crystals_no_diversity` apart"] == "none of 2"
    elements = rows["effective number of elements"]
    assert (elements["base"], elements["`crystals`"]) == ("2.0", "1.8")  # of 3:1, exp of its entropy is 1.75
    assert "Best of N" not in page


def test_an_ablation_alone_or_judged_otherwise(runs, capsys):
    other = runs / "crystals" / "evaluation-0" / "evaluation.json"
    made = json.loads(other.read_text())

    def judged(table):
        for seed in (0, 1):
            path = runs / "crystals" / f"evaluation-{seed}" / "evaluation.json"
            path.write_text(json.dumps(table))

    base = made["columns"]["base"] | {"time_step": 100}
    for key, value in (("evaluator", "another hull"), ("columns", made["columns"] | {"base": base})):
        judged(made | {key: value})
        with pytest.raises(SystemExit):
            report(runs, "crystals_no_diversity")
        said = key if key == "evaluator" else "time_step"
        assert f"the studies crystals_no_diversity and crystals differ in {said}" in capsys.readouterr().err
    made["metrics"]["msun"]["columns"]["base"]["value"] *= 0.5
    judged(made)
    page = report(runs, "crystals_no_diversity")
    assert "the base's values differ between them**, by up to 50 % of a value: it is another base" in page
    other.unlink()
    assert "Not compared: the same seeds of `crystals`" in report(runs, "crystals_no_diversity")
