"""Free rejection: what passes is kept, what does not is drawn again, and every walk is counted."""

import json
import re
from pathlib import Path

import ase.io
import pytest
import small_backbone
import torch
from torch import Tensor

from atomrl.checkpoints.backbone import Backbone, load_backbone
from atomrl.cli import main
from atomrl.core.records import Prompts, Structures, tensors_of
from atomrl.domains.crystals import CrystalDomain
from atomrl.evaluation import evaluate as evaluation
from atomrl.evaluation import rejection
from atomrl.evaluation.evaluate import SamplePlan, draw, draw_prompts, ready
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.evaluation.rejection import Passed, draw_until_accepted

TRIES = 3
PLAN = SamplePlan(count=12, time_step=5, seed=3, micro_batch_size=6)
CPU = torch.device("cpu")


@pytest.fixture
def model(tmp_path: Path) -> Backbone:
    return load_backbone(str(small_backbone.write(tmp_path / "backbone")))


def to_the_right(structures: Structures) -> Tensor:
    """About half of all: whose first atom lies at positive x."""
    return structures.positions[:, 0, 0] > 0


def test_the_first_that_passes_is_kept(model: Backbone) -> None:
    """Of the same draws as best-of-N's, which all of them were made of in one go."""
    prompts, structures = draw(model, PLAN, TRIES, CPU, "all at once")
    order = prompts.sample_ids.argsort()
    structures = structures[order]
    passes = to_the_right(structures).reshape(-1, TRIES)
    found = draw_until_accepted(model, PLAN, TRIES, to_the_right, CPU)
    assert torch.equal(found.passed, passes.any(1))
    assert bool(found.passed.any())
    assert not bool(passes[:, 0].all())
    places = torch.where(passes.any(1), passes.int().argmax(1), TRIES - 1)  # the first that passes, else the last
    assert found.drawn == int((places + 1).sum())
    kept = structures[torch.arange(len(passes)) * TRIES + places]
    assert torch.equal(found.structures.sizes, kept.sizes)
    assert torch.allclose(found.structures.positions, kept.positions, atol=1e-4)
    assert len(found.accepted) == int(found.passed.sum())
    assert bool(to_the_right(found.accepted).all())


def in_one_table(model: Backbone, tries: int) -> tuple[list[Prompts], Passed]:
    """What is asked for and what comes of it, by a row for each try of each sample that is there from the start."""
    policy, rows = ready(model, PLAN, tries, CPU)
    places = torch.arange(len(rows)).reshape(-1, tries)
    passed, latest = torch.zeros(len(places), dtype=torch.bool), torch.zeros(len(places), dtype=torch.int64)
    walks = torch.zeros(len(places), dtype=torch.int64)
    asked, parts, drawn = [], [], 0
    for number in range(tries):
        asked.append(rows[places[~passed, number]])
        drawn_prompts, structures = draw_prompts(policy, asked[-1], PLAN, PLAN.micro_batch_size, "try")
        samples = drawn_prompts.sample_ids // tries
        latest[samples] = drawn + torch.arange(len(samples))
        passed[samples] = to_the_right(structures)
        walks[samples] += 1
        parts.append(structures)
        drawn += len(samples)
    return asked, Passed(Structures.concatenate(parts)[latest], passed, rows[places[:, 0]], walks)


def test_rows_of_one_try_at_a_time_are_those_of_all_tries(model: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, and never more of them than samples."""
    asked, expected = in_one_table(model, TRIES)
    seen: list[Prompts] = []

    def watched(policy, prompts, *others):
        seen.append(prompts)
        return draw_prompts(policy, prompts, *others)

    monkeypatch.setattr(rejection, "draw_prompts", watched)
    found = draw_until_accepted(model, PLAN, TRIES, to_the_right, CPU)
    assert len(seen) == len(asked) == TRIES
    for one, other in zip(seen, asked, strict=True):
        assert all(map(torch.equal, tensors_of(one).values(), tensors_of(other).values()))
    for one, other in ((found.structures, expected.structures), (found.prompts, expected.prompts)):
        assert all(map(torch.equal, tensors_of(one).values(), tensors_of(other).values()))
    assert torch.equal(found.passed, expected.passed)
    assert torch.equal(found.walks, expected.walks)
    assert found.drawn == expected.drawn


def test_nothing_is_drawn_where_all_pass(model: Backbone) -> None:
    found = draw_until_accepted(model, PLAN, 50, lambda structures: structures.mask.any(1), CPU)
    assert found.drawn == len(found.accepted) == PLAN.count


def test_an_evaluation_draws_no_try_twice(model: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptSamples(tmp_path / "kept")
    first = draw_until_accepted(model, PLAN, TRIES, to_the_right, CPU, kept)
    monkeypatch.setattr(evaluation, "rollout", lambda *_: pytest.fail("drawn again"))
    again = draw_until_accepted(model, PLAN, TRIES, to_the_right, CPU, kept)
    assert torch.equal(first.structures.positions, again.structures.positions)
    assert first.drawn == again.drawn


def test_sample_writes_stable_molecules_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "stable.extxyz"
    main(["sample", "--reject", "4", "--num-molecules", "6", "--time-step", "25", "--output", str(file)])
    molecules = ase.io.read(file, ":")
    assert all(molecule.info["stable"] for molecule in molecules)
    words = capsys.readouterr().out
    counts = re.search(
        r"^(\d+) molecules -> .*, stable by the bond table, of (\d+) that were drawn", words, re.MULTILINE
    )
    assert counts is not None, words
    assert int(counts[1]) == len(molecules) <= int(counts[2]) <= 24
    assert (f"; {6 - len(molecules)} of 6 never were" in words) == (len(molecules) < 6)


def test_an_evaluation_has_it_as_a_column(tmp_path: Path) -> None:
    """And the known set as another, which no walk made: of QM9 all is known, and nearly all stable."""
    words = ["evaluate", "--reject", "3", "--known", "8", "--num-molecules", "4", "--time-step", "10"]
    words += ["reward.workers=1"]
    main([*words, "--output", str(tmp_path / "table")])
    table = (tmp_path / "table" / "evaluation.md").read_text()
    assert re.search(r"^- base after rejection: 4 samples of \d+ drawn, T = 10", table, re.MULTILINE)
    assert re.search(r"^- base: 4 samples, T = 10", table, re.MULTILINE)
    assert re.search(r"^- known set: 8 taken from the set, not drawn from a model, seed 1000003", table, re.MULTILINE)
    written = json.loads((tmp_path / "table" / "evaluation.json").read_text())
    value = {name: row["columns"]["known set"]["value"] for name, row in written["metrics"].items()}
    assert (value["novelty"], value["valid_unique_novel"]) == (0, 0)
    assert value["atom_stability"] > 0.9
    assert written["columns"]["known set"]["time_step"] is None


def test_two_ways_to_choose_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sample", "--reject", "2", "--best-of", "2", "--output", str(tmp_path / "a.sdf")])
    assert "--best-of and --reject are different ways to choose: give one" in capsys.readouterr().err


def test_crystals_with_a_sound_cell_pass() -> None:
    cell = 4 * torch.eye(3).expand(2, 3, 3)
    positions = torch.tensor([[[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]], [[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]]])
    numbers = torch.tensor([[55, 17], [55, 17]])
    crystals = Structures(numbers, positions, torch.ones(2, 2, dtype=torch.bool), cell)
    assert CrystalDomain().accepts(crystals).tolist() == [True, False]  # CsCl, and one atom on the other
