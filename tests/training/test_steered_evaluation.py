"""`atomrl evaluate --steer`: a column of the base's samples, steered by the run's reward, with what it cost."""

import json
from pathlib import Path

import ase
import ase.io
import pyarrow.parquet as pq
import pytest
import small_backbone
from refusals import refused

import atomrl
from atomrl.cli import main
from atomrl.core.records import Prompts
from atomrl.core.steering import steer
from atomrl.evaluation import steered
from atomrl.library import model_evaluation
from atomrl.report.page import unpacked
from atomrl.sampling.steering_options import SteeringOptions

BY_DUMMY = Path(__file__).parents[1] / "data" / "run_of_0.1.0"
LABEL, FILE = "base steered with 3 particles", "base_steered_with_3_particles.extxyz"
DRAWN = ["--num-molecules", "30", "--time-step", "6", "--seed", "5"]
STEERED = ["--steer", "3", "--steer-temperature", "0", "--steer-places", "4"]
TINY = [word for word in small_backbone.TINY if not word.startswith(("reward.", "train.energy"))]
TINY += ["train.energy_adv_weight=0", "train.force_adv_weight=0"]
REWARD = """
def compact(molecules):
    return [-float(abs(one.positions - one.positions.mean(0)).mean()) for one in molecules]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a backbone, a reward by which small molecules are better, and a run of an iteration."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "mine.py").write_text(REWARD)
    words = [f"model.backbone={small_backbone.write(folder / 'backbone')}", by_own_reward(folder), "reward.workers=1"]
    main(["train", *TINY, *words, "dataloader.epoches=1", f"save_path={folder / 'run'}"])
    return folder


def by_own_reward(folder: Path) -> str:
    """The key of a configuration that names it."""
    return f"reward.components=[{{_target_: '{folder}/mine.py:compact'}}]"


def evaluation(made: Path, folder: Path, *words: str) -> list[str]:
    """Words for an evaluation of 30 molecules of base and run."""
    models = ["--base", str(made / "backbone"), "--trained", str(made / "run"), "--trust-code"]
    return ["evaluate", *models, *DRAWN, "reward.workers=1", *words, "--output", str(folder)]


class Watched:
    """`steer`, which notes how many particles each batch has and is interrupted in the batch of a number."""

    def __init__(self, interrupted: int | None = None) -> None:
        self.interrupted = interrupted
        self.batches: list[int] = []

    def __call__(self, policy, prompts: Prompts, config, score):
        if len(self.batches) == self.interrupted:
            raise KeyboardInterrupt
        self.batches.append(len(prompts))
        return steer(policy, prompts, config, score)


def molecules(file: Path) -> list[ase.Atoms]:
    return ase.io.read(file, ":")


def radius(file: Path) -> float:
    """Mean over molecules of their atoms' distance to the centre, Å."""
    found = [abs(one.positions - one.positions.mean(0)).mean() for one in molecules(file)]
    return float(sum(found) / len(found))


def test_the_column_is_what_sample_writes(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the same seed and reward, molecule by molecule; table, samples and report say what it is and cost."""
    folder, alone = tmp_path / "table", tmp_path / "alone.extxyz"
    main(evaluation(made, folder, *STEERED))
    by_reward = ["--config-name", "fed_grpo_config", by_own_reward(made)]
    main(["sample", "--backbone", str(made / "backbone"), *DRAWN, *STEERED, *by_reward, "--output", str(alone)])
    assert (
        "after 450 scorings and 630 calls of the network" in capsys.readouterr().out
    )  # 90 walks; 4 places and the end
    for one, other in zip(molecules(folder / FILE), molecules(alone), strict=True):
        assert one.numbers.tolist() == other.numbers.tolist()
        assert one.positions == pytest.approx(other.positions, abs=1e-6)
    assert radius(folder / FILE) < 0.9 * radius(folder / "base.extxyz")

    table = json.loads((folder / "evaluation.json").read_text())
    assert [*table["columns"]] == ["base", LABEL, "trained"]
    column = table["columns"][LABEL]
    assert (column["samples"], column["drawn"], column["scorings"]) == (30, 90, 450)
    assert column["model"] == table["columns"]["base"]["model"]
    assert table["columns"]["base"]["scorings"] is None
    assert f"- {LABEL}: 30 samples of 90 drawn, chosen by 450 scorings, T = 6" in (folder / "evaluation.md").read_text()
    rows = pq.read_table(folder / "evaluation.parquet").to_pylist()
    assert [row["sample_id"] for row in rows if row["column"] == LABEL] == [f"{row:05d}" for row in range(30)]
    main(["evaluate", "--structures", str(alone), "--output", str(tmp_path / "judged"), "reward.workers=1"])
    judged = json.loads((tmp_path / "judged" / "evaluation.json").read_text())
    for name in ("atom_stability", "molecule_stability", "validity", "novelty"):
        assert table["metrics"][name]["columns"][LABEL] == judged["metrics"][name]["columns"]["alone"]
    main(["report", str(folder), "--output", str(tmp_path / "report.html")])
    page = unpacked((tmp_path / "report.html").read_text())
    assert "30 samples of 90 drawn, chosen by 450 scorings" in json.dumps(page)


def test_a_stopped_evaluation_goes_on(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Batches that were steered are not steered again, unless it is otherwise or by another reward."""
    monkeypatch.setattr(steered, "steer", whole := Watched())
    cut, straight = tmp_path / "cut", tmp_path / "straight"
    main(evaluation(made, straight, *STEERED))
    assert sum(whole.batches) == 90
    assert len(whole.batches) > 1
    monkeypatch.setattr(steered, "steer", first := Watched(interrupted=1))
    with pytest.raises(SystemExit) as ended:
        main(evaluation(made, cut, *STEERED))
    assert ended.value.code == 130
    assert "what was sampled and judged is kept in" in capsys.readouterr().out
    for hotter, edited in (("1", REWARD), ("0", f"{REWARD}# edited\n")):
        (made / "mine.py").write_text(edited)
        monkeypatch.setattr(steered, "steer", Watched(interrupted=0))
        with pytest.raises(SystemExit) as ended:
            main(evaluation(made, cut, *STEERED, "--steer-temperature", hotter))
        assert ended.value.code == 130  # it asked for the first batch anew
    (made / "mine.py").write_text(REWARD)
    monkeypatch.setattr(steered, "steer", second := Watched())
    main(evaluation(made, cut, *STEERED))
    assert first.batches + second.batches == whole.batches
    assert (cut / FILE).read_bytes() == (straight / FILE).read_bytes()


def test_it_is_refused_before_anything_is_sampled(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, *evaluation(made, tmp_path / "table", "--steer", "2", "--steer-places", "7"))
    assert said == "error: --steer-places 7: must be at most 6, the steps of the walk (--time-step)"
    assert not (tmp_path / "table" / "unfinished").exists()


@pytest.mark.parametrize("way", ["--steer", "--best-of"])
def test_by_a_reward_without_a_total_too(way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = ["--base", str(BY_DUMMY / "backbone"), "--trained", str(BY_DUMMY / "run")]
    said = refused(capsys, "evaluate", *models, *DRAWN, way, "2", "--output", str(tmp_path / "table"))
    assert said == "error: reward.type=dummy has no total, by which samples could be chosen: give another reward"
    assert not (tmp_path / "table").exists()


def test_a_reward_that_is_typed_did_not_pay_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table marks what the run was trained for, whatever chooses or judges its samples now."""
    marked: list[set[str]] = []
    monkeypatch.setattr(model_evaluation, "judge", lambda *_: None)
    monkeypatch.setattr(model_evaluation, "compare", lambda _, rewarded, *__: marked.append(rewarded))
    for words in ([], ["reward.type=xtb"]):
        models = (str(BY_DUMMY / "backbone"), str(BY_DUMMY / "run"))
        options = (*models, 2, 3, None, 0, SteeringOptions(), 0, 0, words, tmp_path / "table", "cpu")
        model_evaluation.ModelEvaluation(*options).report("", trust_code=False, remedy="")
    assert marked == [set(), set()]


def test_from_python(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a reward that is an object: what such a function does inside may change, so that no batch of it is kept."""

    def flat(molecules: "list[ase.Atoms]") -> list[float]:
        return [-float(abs(molecule.positions[:, 2]).mean()) for molecule in molecules]

    monkeypatch.chdir(tmp_path)
    words = [*TINY, f"model.backbone={made / 'backbone'}", "dataloader.epoches=1", "save_path=run", "reward.workers=1"]
    run = atomrl.train("demo", words, reward=flat)
    options = {"time_step": 6, "steer": 3, "steer_temperature": 0.0, "steer_places": 4, "output": "table"}
    monkeypatch.setattr(steered, "steer", first := Watched(interrupted=1))
    with pytest.raises(KeyboardInterrupt):
        run.evaluate(30, **options)
    monkeypatch.setattr(steered, "steer", second := Watched())
    report = run.evaluate(30, **options)
    assert second.batches[:1] == first.batches
    assert sum(second.batches) == 90
    [column] = [column for column in report.main.columns if column.label == LABEL]
    assert (column.drawn, column.scorings) == (90, 450)
    arguments = "samples=30, time_step=6, steer=3, steer_temperature=0.0, steer_places=4, output='table'"
    assert column.command == f"atomrl.evaluate('run', {arguments})"
