"""`atomrl sample` into a file: a killed command goes on to the file of an uninterrupted one, in constant memory."""

import json
import re
from pathlib import Path

import pytest
import small_backbone
import torch
from conditional_crystals import write
from stopped import interrupted

from atomrl.cli import main
from atomrl.core.records import Structures
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.util.errors import UserError
from atomrl.util.growing_file import growing

FEW = ["--time-step", "3", "--seed", "5"]


def sample(*words: str) -> None:
    main(["sample", *FEW, *words])


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (["-n", "201"], "was begun with samples 200, not 201"),
        (["--time-step", "4"], "was begun with time step 3, not 4"),
        (["--seed", "6"], "was begun with seed 5, not 6"),
        (["--sizes", "4"], r"was begun with sizes \[\], not \[4\]"),
    ],
)
def test_other_settings_are_refused(
    other: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone, output = small_backbone.write(tmp_path / "backbone"), tmp_path / "some.extxyz"
    words = ["--backbone", str(backbone), "--num-molecules", "200"]
    interrupted(1, ["sample", *FEW, *words, "--output", str(output)])
    assert "stopped after 64 of 200 samples: the same command continues" in capsys.readouterr().out
    before = output.with_name("some.extxyz.unfinished").read_bytes()
    with pytest.raises(SystemExit) as ended:
        sample(*words, *other, "--output", str(output))
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.count("\n") == 1
    assert re.search(said, error), error
    assert "delete" in error
    assert output.with_name("some.extxyz.unfinished").read_bytes() == before


def test_another_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backbone, output = small_backbone.write(tmp_path / "backbone"), tmp_path / "some.extxyz"
    interrupted(1, ["sample", *FEW, "--backbone", str(backbone), "-n", "200", "--output", str(output)])
    with pytest.raises(SystemExit):
        sample("--backbone", "edm_qm9_small", "-n", "200", "--output", str(output))
    assert "was begun with model " in capsys.readouterr().err


def test_a_file_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with growing(path, {}) as file:
        file.append("one", {"kept": 1})
        with pytest.raises(UserError, match="is being written by another process"), growing(path, {}):
            pytest.fail("opened twice")
    assert path.read_text() == "one"


def interrupt() -> None:
    raise KeyboardInterrupt


def begun(path: Path) -> None:
    """A file with one part, left so."""
    try:
        with growing(path, {"seed": 1}) as file:
            file.append("one", {"kept": 1})
            interrupt()
    except KeyboardInterrupt:
        pass


def test_damaged_notes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    begun(path)
    notes = tmp_path / "file.unfinished.json"
    held = notes.read_text()
    notes.write_text(held[:20])
    with pytest.raises(UserError, match=r"cannot be read .* delete"), growing(path, {"seed": 1}):
        pytest.fail("opened")
    notes.write_text(held)
    (tmp_path / "file.unfinished").write_text("o")
    with pytest.raises(UserError, match=r"lost what file\.unfinished\.json says"), growing(path, {"seed": 1}):
        pytest.fail("opened")


def test_a_file_that_nobody_wants_is_deleted(tmp_path: Path) -> None:
    """What has its name stays, and it can be begun with other settings."""
    path = tmp_path / "file"
    path.write_text("old")
    with growing(path, {"seed": 1}) as file:
        file.append("one", {"kept": 0})
        file.discard()
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_counts_add_up_over_commands(tmp_path: Path) -> None:
    path = tmp_path / "file"
    begun(path)
    with growing(path, {"seed": 1}) as file:
        assert (file.parts, file.counts) == (1, {"kept": 1})
        file.append("two", {"kept": 2, "drawn": 5})
    assert file.counts == {"kept": 3, "drawn": 5}
    assert path.read_text() == "onetwo"


def test_the_difference_is_named_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    begun(path)
    with (
        pytest.raises(UserError, match=r"was begun with context\.gap unset, not 2"),
        growing(path, {"seed": 1, "context": {"gap": 2}}),
    ):
        pytest.fail("opened")


def test_a_file_of_an_earlier_version_says_so(tmp_path: Path) -> None:
    path = tmp_path / "file"
    begun(path)
    notes = tmp_path / "file.unfinished.json"
    earlier = json.loads(notes.read_text())
    del earlier["format"]
    notes.write_text(json.dumps(earlier))
    with (
        pytest.raises(UserError, match=r"begun by an earlier version, without content of w\.model: begin again under"),
        growing(path, {"seed": 1, "content of w.model": "0123456789ab"}),
    ):
        pytest.fail("opened")
    earlier["settings"]["content of run.log"] = "0123456789ab"  # which is a file that is written
    notes.write_text(json.dumps(earlier))
    with (
        pytest.raises(UserError, match=r"begun by an earlier version, with content of run\.log: begin again under"),
        growing(path, {"seed": 1}),
    ):
        pytest.fail("opened")


def test_nothing_stays_of_a_file_without_a_part(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), growing(tmp_path / "file", {}):
        interrupt()
    assert not list(tmp_path.iterdir())


def test_the_last_line_counts_what_the_file_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No CIF has two atoms at one place; an extended XYZ has."""

    def reconstruct(self: CrystalVAE, latents: torch.Tensor, mask: torch.Tensor) -> Structures:
        cells = 8 * torch.eye(3).expand(len(mask), 3, 3)
        return Structures(11 * mask.long(), torch.zeros(*mask.shape, 3), mask > 0, cells)

    monkeypatch.setattr(CrystalVAE, "reconstruct", reconstruct)
    net = str(write(tmp_path / "net"))
    for name, count in (("some.cif", 0), ("some.extxyz", 2)):
        sample("--backbone", net, "-n", "2", "--output", str(tmp_path / name))
        assert capsys.readouterr().out.splitlines()[-1] == f"{count} crystals -> {tmp_path / name}"


def test_what_fails_between_two_parts_is_not_told_as_a_full_disk(tmp_path: Path) -> None:
    def fail() -> None:
        with growing(tmp_path / "file", {"seed": 1}) as file:
            file.append("a", {})
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        fail()
    with growing(tmp_path / "file", {"seed": 1}) as file:
        assert file.parts == 1
