"""What W&B gets of a training: written offline by the real package, and read back from its files."""

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from atomrl.cli import main
from atomrl.config import load_config
from atomrl.training.run import train
from atomrl.training.weights_and_biases import RUN_ID, run_id
from atomrl.util.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))
from small_backbone import TINY, write

BLOCK, HEADER = 32768, 7
"""Bytes of LevelDB's log format: of a block, and of what stands before a record."""


def records(path: Path) -> list[bytes]:
    """The records of a .wandb file: LevelDB's log format behind a head of 7 bytes."""
    content, place, found, parts = path.read_bytes(), 7, [], []
    assert content[:4] == b":W&B"
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        if not kind:
            break
        parts.append(content[place + HEADER : place + HEADER + length])
        place += HEADER + length
        if kind in (1, 4):  # a whole one, or the last part of one
            found.append(b"".join(parts))
            parts = []
    return found


def read_back(file: Path) -> tuple[dict, dict[int, dict]]:
    """Of an offline run: {what it says of itself}, {step: {name: value}}."""
    from wandb.proto.wandb_internal_pb2 import Record

    about, history = {}, {}
    for content in records(file):
        record = Record.FromString(content)
        if record.HasField("run"):
            about = {"id": record.run.run_id, "name": record.run.display_name, "project": record.run.project}
        if record.HasField("history"):
            values = history.setdefault(record.history.step.num, {})
            for item in record.history.item:
                name, *inside = [item.key] if item.key else item.nested_key
                value = json.loads(item.value_json)
                if inside:
                    values.setdefault(name, {})[inside[0]] = value
                else:
                    values[name] = value
    return about, history


def test_a_continued_run_is_the_same_run_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, each start has a folder of its own, with the same id, and all that is shown of the run in it."""
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    backbone = write(tmp_path / "backbone")
    words = [*TINY, f"model.backbone={backbone}", f"save_path={tmp_path / 'run'}", "log.samples_every=2"]
    words += ["wandb.enabled=true", "wandb.wandb_project=mine", "wandb.wandb_name=first try", "dataloader.epoches=2"]
    folder = train(load_config("demo", words), "demo")
    (begun,) = (folder / "wandb").glob("offline-run-*")
    main(["resume", str(folder), "dataloader.epoches=3"])
    (continued,) = set((folder / "wandb").glob("offline-run-*")) - {begun}
    name = (folder / RUN_ID).read_text().strip()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for place, steps in ((begun, [0, 1]), (continued, [2])):
        about, history = read_back(place / f"run-{name}.wandb")
        assert about == {"id": name, "name": "first try", "project": "mine"}
        assert list(history) == steps
        for step in steps:
            assert history[step]["reward/reward"] == pytest.approx(lines[step]["reward"])
            assert history[step]["policy/lr"] == pytest.approx(lines[step]["lr"])
            seen = "samples/picture" in history[step]
            assert seen == ("samples/table" in history[step]) == ("policy/advantage_histogram" in history[step])
            assert seen == (step % 2 == 0)
        shown = history[steps[0]]
        assert shown["policy/advantage_histogram"]["_type"] == "histogram"
        assert sum(shown["policy/advantage_histogram"]["values"]) == 6
        assert (place / "files" / shown["samples/picture"]["path"]).read_bytes().startswith(b"\x89PNG")
        table = json.loads((place / "files" / shown["samples/table"]["path"]).read_text())
        assert table["columns"][0] == "sample_id"
        assert [row[0] for row in table["data"]] == [f"{6 * steps[0] + row:05d}" for row in range(6)]


def test_nobody_is_logged_in(tmp_path: Path) -> None:
    """One line, before the training, and the run directory can be used again."""
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    words = [*TINY, f"model.backbone={write(tmp_path / 'backbone')}", f"save_path={tmp_path / 'run'}"]
    ended = subprocess.run(
        [sys.executable, "-m", "atomrl", "train", *words, "wandb.enabled=true"],
        env={name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        | {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    (said,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert re.match(r"error: wandb.enabled=true, but W&B says: .*WANDB_MODE=offline keeps", said)
    assert not (tmp_path / "run").exists()


def test_the_id_of_a_run(tmp_path: Path) -> None:
    assert run_id(tmp_path) == run_id(tmp_path)
    assert run_id(tmp_path / "other") != run_id(tmp_path)
    (tmp_path / RUN_ID).write_text("../../a file\n")
    with pytest.raises(UserError, match=r"run_id holds '../../a file', no id of a W&B run: remove it"):
        run_id(tmp_path)
