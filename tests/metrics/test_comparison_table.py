import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.core.records import Structures
from atomrl.evaluation.molecules import evaluate_molecules
from atomrl.evaluation.table import Column, Comparison
from atomrl.evaluation.table_text import as_text
from atomrl.force_fields.base import Evaluation
from atomrl.structures.molecules import split
from atomrl.util.errors import UserError


def column(label, structures, records, force, **options):
    results = [Evaluation(-1.0, np.full((len(z), 3), force), None) for z, _ in split(structures)]
    results[0] = Evaluation.failed(len(results[0].forces), "overlap")
    metrics = evaluate_molecules(
        structures,
        records,
        results,
        references=dict.fromkeys("HCNOF", 0.0),
        training=TrainingSmiles.load(),
        evaluator="gfn2",
        resamples=200,
        **options,
    )
    return Column(label, metrics, (1, 2), f"atomrl evaluate {label}", 50)


@pytest.fixture(scope="module")
def columns(qm9_test, records_of):
    noise = torch.randn(qm9_test.positions.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    shaken = Structures(qm9_test.numbers, qm9_test.positions + noise * qm9_test.mask[..., None], qm9_test.mask)
    return (
        column("base", shaken, records_of(shaken), 4.0),
        column("trained", qm9_test, records_of(qm9_test), 1.0),
    )


def test_text_for_a_terminal(columns):
    """Aligned; each number of the Markdown; three lines below, nothing of them lost in the JSON."""
    table = Comparison.of(columns, rewarded={"molecule_stability"})
    head, rule, *rows, blank, reading, sampled, conditions = as_text(table).splitlines()
    assert head.split() == ["base", "trained", "overlaps", "base?"]
    assert set(rule) == {"-"}
    assert blank == ""
    assert len(rows) == len(table.names)
    ends = {head.index("base") + 4, head.index("trained") + 7, len(head)}
    assert all(row[end - 1] != " " and row[end : end + 2].strip() == "" for row in rows for end in ends)
    assert {row[:2] for row in rows} == {"* ", "  "}
    [stability] = [row for row in rows if row.startswith("* ")]
    assert stability.startswith("* molecule stability ↑ ")
    assert stability.endswith(" no")
    for cell in ("6.928 [6.928, 6.928] / 300", "/ 299"):
        assert any(cell in row for row in rows)
        assert cell in table.markdown()
    assert reading.startswith("edm-2022, energies and forces by gfn2; value [95 % interval] / denominator")
    assert reading.endswith("; * rewarded in training")
    assert sampled.startswith("base: 300 samples, T = 50, seed 1 and 2, failed: ")
    assert "; trained: 300 samples" in sampled
    assert "bond_table_sha256" in conditions
    assert conditions.endswith("in full, with commands, in the JSON")
    whole = table.as_json()
    for name, value in columns[0].metrics.conditions.items():
        assert whole["conditions"][name] == value
        assert f"{name} {str(value)[:20]}" in conditions
    assert [whole["columns"][label]["command"] for label in ("base", "trained")] == [
        "atomrl evaluate base",
        "atomrl evaluate trained",
    ]
    assert "rewarded" not in as_text(Comparison.of(columns[:1]))


def test_markdown(columns):
    text = Comparison.of(columns, rewarded={"rms_force_median", "molecule_stability"}).markdown()
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert rows["metric"].endswith("| rewarded | base | trained | intervals overlap? base / trained |")
    stability = rows["molecule stability ↑"]
    assert "| yes |" in stability
    assert "/ 300 samples" in stability
    assert stability.endswith("| **no** |")
    force = rows["RMS force, median (failure = inf) ↓, eV/Å"]
    assert "6.928 [6.928, 6.928] / 300 samples" in force
    assert rows["RMS force, mean of evaluated ↓, eV/Å"].count("/ 299 evaluated") == 2
    assert rows["force field failures ↓"].endswith("| yes |")
    for note in (
        "Profile `edm-2022`",
        "by gfn2",
        "T = 50, seeds 1, 2",
        "`atomrl evaluate base`",
        "force_field overlap 1",
    ):
        assert note in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_json(columns):
    content = json.loads(Comparison.of(columns, rewarded=["novelty"]).json_text())
    assert content["rewarded"] == ["novelty"]
    stability = content["metrics"]["molecule_stability"]
    assert stability["overlaps_first"] == {"trained": False}
    assert stability["columns"]["trained"]["denominator"] == 300
    assert content["columns"]["base"]["seeds"] == [1, 2]
    assert content["columns"]["base"]["failures"]["force_field"] == {"overlap": 1}
    assert sum(content["columns"]["trained"]["sizes"].values()) == 300


def test_infinite_and_missing_numbers(columns):
    summary = dict(columns[0].metrics.summary)
    summary["rms_force_median"] = replace(summary["rms_force_median"], value=np.inf, high=np.inf)
    del summary["novelty"]
    odd = replace(columns[0], label="odd", metrics=replace(columns[0].metrics, summary=summary))
    table = Comparison.of([columns[1], odd])
    content = json.loads(table.json_text())
    assert content["metrics"]["rms_force_median"]["columns"]["odd"]["value"] == "inf"
    assert content["metrics"]["novelty"]["columns"]["odd"]["value"] is None
    assert content["metrics"]["novelty"]["overlaps_first"]["odd"] is None
    assert "inf [6.928, inf]" in table.markdown()
    assert "- / 0 unique | - |" in table.markdown()


def test_one_column_and_three(columns):
    assert "overlap?" not in Comparison.of(columns[:1]).markdown()
    third = replace(columns[1], label="best of 8")
    assert "intervals overlap? base / best of 8 |" in Comparison.of([*columns, third]).markdown()


def test_refusals(columns):
    with pytest.raises(UserError, match="no metric is called speed"):
        Comparison.of(columns, rewarded=["speed"])
    with pytest.raises(UserError, match="different labels"):
        Comparison.of([columns[0], columns[0]])
    other = replace(columns[1], metrics=replace(columns[1].metrics, evaluator="ani"))
    with pytest.raises(UserError, match="differ in profile, evaluator or conditions"):
        Comparison.of([columns[0], other])
