"""`atomrl sample --best-of`, `--steer` and `--reject` into a file: as samples that are not chosen, chunk by chunk."""

import json
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import ase.io
import pytest
import small_backbone
import torch
from refusals import refused
from stopped import interrupted
from torch import Tensor

from atomrl.chemistry.rdkit import MoleculeChecker, RdkitRecord
from atomrl.cli import main
from atomrl.config import load_config
from atomrl.core import steering
from atomrl.core.advantages import Groups
from atomrl.core.records import Prompts, Structures
from atomrl.domains.molecules import MoleculeDomain, MoleculeExporter
from atomrl.evaluation import rejection
from atomrl.export.exporter import Written
from atomrl.sampling.chosen import about_reward
from atomrl.user_code.load import file_of

LOT = 16
REWARD = "def compact(molecules):\n    return [-float(abs(one.positions).max()) for one in molecules]\n"

FAILING = """
import torch
from atomrl.rewards.scores import Scores


def compact(molecules):
    return Scores(torch.full((len(molecules),), torch.nan), ("nothing to say",) * len(molecules))
"""

Command = Callable[..., list[str]]


def to_the_right(_: MoleculeDomain, structures: Structures) -> Tensor:
    """About half of all: whose first atom lies at positive x."""
    return structures.positions[:, 0, 0] > 0


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch, records_of: Callable[[Structures], list[RdkitRecord]]) -> list[int]:
    """Samples in each part that is written; what an untrained model makes passes, and RDKit needs no worker."""
    written: list[int] = []
    text = MoleculeExporter.text

    def watched(self: MoleculeExporter, structures: Structures, ids: list[str]) -> Written:
        written.append(len(structures))
        return text(self, structures, ids)

    monkeypatch.setattr(MoleculeExporter, "text", watched)
    monkeypatch.setattr(MoleculeChecker, "check", lambda _, structures: records_of(structures))
    monkeypatch.setattr(MoleculeDomain, "accepts", to_the_right)
    monkeypatch.setattr(rejection, "LOT", LOT)
    return written


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Function: how samples are chosen, what else is asked -> words for 60 samples in a file, by a name."""
    backbone, mine = small_backbone.write(tmp_path / "backbone"), tmp_path / "mine.py"
    mine.write_text(REWARD)
    drawn = ["sample", "--backbone", str(backbone), "-n", "60", "--time-step", "3", "--seed", "5"]
    component = f"reward.components=[{{_target_: '{mine}:compact', normalize_fn: std}}]"

    def words(*way: str, name: str = "some.extxyz") -> list[str]:
        chosen = ["--config-name", "fed_grpo_config", component] if {"--best-of", "--steer"} & {*way} else []
        return [*drawn, *chosen, *way, "--output", str(tmp_path / name)]

    return words


@pytest.mark.parametrize(
    ("way", "cost"),
    [
        (["--best-of", "4"], "after 240 scorings and 960 calls of the network"),  # three steps, and one to decode
        (["--steer", "4"], "after 720 scorings and 960 calls of the network"),  # resampled twice in three steps
        (
            ["--steer", "4", "--steer-temperature", "0", "--steer-places", "1"],
            "after 480 scorings and 960 calls of the",
        ),
        (["--reject", "3"], r"stable by the bond table, of (\d+) that were drawn; \d+ of 60 never were"),
    ],
)
def test_a_stopped_command_goes_on(
    way: list[str],
    cost: str,
    command: Command,
    batches: list[int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """To the file of an uninterrupted one, and it says what both parts of it cost."""
    main(command(*way, name="straight.extxyz"))
    said = capsys.readouterr().out
    assert re.search(cost, said), said
    parts, largest = len(batches), max(batches)
    assert parts >= 4
    assert largest <= LOT
    interrupted(2, command(*way, name="cut.extxyz"))
    assert re.search(r"^stopped after \d+ of 60 samples: the same command", capsys.readouterr().out, re.MULTILINE)
    batches.clear()
    main(command(*way, name="cut.extxyz"))
    assert capsys.readouterr().out == said.replace("straight", "cut")
    assert len(batches) == parts - 2
    assert (tmp_path / "cut.extxyz").read_bytes() == (tmp_path / "straight.extxyz").read_bytes()
    assert not list(tmp_path.glob("*.unfinished*"))


@pytest.mark.usefixtures("batches")
def test_samples_that_no_score_chose_are_counted(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(FAILING)
    main(command("--best-of", "2"))
    assert "network; 60 of them by no score, which all their candidates lack" in capsys.readouterr().out


def test_ids_are_those_of_the_wanted_samples(command: Command, batches: list[int], tmp_path: Path) -> None:
    """Of rejected ones there is none, and in what lots samples are tried changes nothing."""
    main(command("--best-of", "2"))
    assert [atoms.info["sample_id"] for atoms in read(tmp_path)] == [f"{row:05d}" for row in range(60)]
    main(command("--reject", "3"))
    few = read(tmp_path)
    ids = [atoms.info["sample_id"] for atoms in few]
    assert ids == sorted(set(ids))
    assert len(ids) < 60
    assert max(ids) >= "00050"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rejection, "LOT", 7)
        batches.clear()
        main(command("--reject", "3"))
    assert max(batches) <= 7
    for one, other in zip(few, read(tmp_path), strict=True):
        assert one.info == other.info
        assert abs(one.positions - other.positions).max() < 1e-4


@pytest.mark.usefixtures("batches")
def test_a_reward_that_was_edited_is_refused(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file would hold the best by two rewards; with the first one again the command goes on."""
    mine = tmp_path / "mine.py"
    interrupted(2, command("--best-of", "4"))
    mine.write_text(REWARD.replace("-float", "float"))
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(command("--best-of", "4"))
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.count("\n") == 1
    assert re.search(rf"was begun with content of {mine}:compact \w{{12}}, not \w{{12}}: give the same again", error)
    mine.write_text(REWARD)
    main(command("--best-of", "4"))
    assert "after 240 scorings" in capsys.readouterr().out


@pytest.mark.usefixtures("batches")
def test_the_reward_computes_where_the_command_says(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not where its configuration would, which is a GPU if there is one."""
    reward, devices = MoleculeDomain.reward, []

    def watched(self, config, model, workers=None):
        devices.append(config.device)
        return reward(self, config, model, workers)

    monkeypatch.setattr(MoleculeDomain, "reward", watched)
    main(command("--best-of", "2", "--device", "cpu"))
    assert devices == ["cpu"]


def test_code_by_its_module_is_known_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rewards_of_mine.py").write_text(REWARD)
    assert file_of("rewards_of_mine.compact") == tmp_path / "rewards_of_mine.py"
    assert file_of("./rewards_of_mine.py:compact") == Path("rewards_of_mine.py")
    assert file_of("builtins.len") is None


def test_what_a_reward_reads_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the home folder too; what it writes is not, and an option that is called as code is named is no code."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.model").write_text("1")
    (tmp_path / "of.log").write_text("1")
    (tmp_path / "mine.py").write_text(REWARD)
    component = {
        "_target_": f"{tmp_path}/mine.py:compact",
        "source": "mp-20",
        "inner": {"_target_": "not_there.Class"},
        "weights": "~/w.model",
        "log_file": "~/of.log",
    }
    config = load_config("fed_grpo_config")
    config = config.model_copy(update={"reward": config.reward.model_copy(update={"components": [component]})})

    def known() -> dict[str, object]:
        return {name: value for name, value in about_reward(config).items() if name.startswith("content of ")}

    first = known()
    assert {*first} == {"content of ~/w.model", f"content of {tmp_path}/mine.py:compact"}
    (tmp_path / "of.log").write_text("2")
    assert known() == first
    (tmp_path / "w.model").write_text("2")
    assert known() != first


def read(folder: Path) -> list[ase.Atoms]:
    return ase.io.read(folder / "some.extxyz", ":")


@pytest.mark.usefixtures("batches")
def test_other_settings_are_refused(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(2, command("--best-of", "4"))
    notes = json.loads((tmp_path / "some.extxyz.unfinished.json").read_text())
    assert notes["counts"]["scorings"] == 4 * notes["counts"]["kept"]
    capsys.readouterr()
    for words, said in (
        ([], "was begun with choice --best-of 4, not none"),
        (["--best-of", "3"], "was begun with choice --best-of 4, not --best-of 3"),
        (["--steer", "4"], "was begun with choice --best-of 4, not --steer 4"),
        (["--reject", "4"], "was begun with choice --best-of 4, not --reject 4"),
        (
            ["--best-of", "4", "--config-name", "fed_grpo_geom_config"],
            "configuration fed_grpo_config, not fed_grpo_geom",
        ),
        (["--best-of", "4", "reward.timeout=7"], "was begun with reward.timeout 10.0, not 7.0"),
        (["--best-of", "4", "--sizes", "4"], "was begun with sizes [], not [4]"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(command(*words))
        error = capsys.readouterr().err
        assert ended.value.code == 2
        assert error.count("\n") == 1
        assert said in error
    main(command("--best-of", "4", "reward.workers=1"))  # where scores are computed changes none
    assert "after 240 scorings" in capsys.readouterr().out


@pytest.mark.usefixtures("batches")
def test_a_file_that_is_steered_otherwise_is_refused(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is said is the same settings as what is not; a file of two ways to resample is none."""
    interrupted(2, command("--steer", "4"))
    for words, said in (
        (["--steer-temperature", "0"], "was begun with --steer-temperature 0.5, not 0.0: give the same again"),
        (["--steer-places", "1"], "was begun with --steer-places 2, not 1: give the same again"),
    ):
        assert said in refused(capsys, *command("--steer", "4", *words))
    main(command("--steer", "4", "--steer-temperature", "0.5", "--steer-places", "2"))
    assert "after 720 scorings" in capsys.readouterr().out
    assert len(read(tmp_path)) == 60


@pytest.mark.usefixtures("batches")
@pytest.mark.parametrize("temperature", ["0", "100"])
def test_temperature_0_keeps_one_ancestor(temperature: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each place all particles of a sample come from its best one; a high temperature keeps most of them."""
    seen: dict[int, list[int]] = defaultdict(list)
    resampled = steering._resampled

    def watched(worth: Tensor, groups: Groups, heat: float, prompts: Prompts, index: int) -> Tensor:
        rows = resampled(worth, groups, heat, prompts, index)
        for group in range(groups.count):
            came_from = rows[groups.index == group]
            assert groups.index[came_from].tolist() == [group] * 4
            seen[index].append(len(came_from.unique()))
            if temperature == "0":
                assert worth[came_from[0]] == worth[groups.index == group].max()
        return rows

    monkeypatch.setattr(steering, "_resampled", watched)
    main(command("--steer", "4", "--steer-temperature", temperature, "--steer-places", "2"))
    assert {index: len(counts) for index, counts in seen.items()} == {1: 60, 2: 60}
    for counts in seen.values():
        assert max(counts) == 1 if temperature == "0" else sum(counts) / len(counts) > 2


@pytest.mark.usefixtures("batches")
def test_where_none_passes_nothing_stays(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that another number of tries can be asked for; a file of that name is left as it was."""
    monkeypatch.setattr(MoleculeDomain, "accepts", lambda _, structures: torch.zeros(len(structures)).bool())
    (tmp_path / "some.extxyz").write_text("of another command")
    with pytest.raises(SystemExit) as stopped:
        main(command("--reject", "2"))
    assert stopped.value.code == 2
    assert "--reject: none of 120 molecules is stable by the bond table; raise it" in capsys.readouterr().err
    assert (tmp_path / "some.extxyz").read_text() == "of another command"
    assert not list(tmp_path.glob("*.unfinished*"))
