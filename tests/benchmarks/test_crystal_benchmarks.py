"""The crystal benchmarks run, compare what they say they compare, and notice when it differs."""

import re
from pathlib import Path

import numpy as np
import pytest
import small_crystal_set
import torch
from crystal_models import small_policy
from crystal_samples import ROCK_SALT, SILICON
from pymatgen.core import Composition

from atomrl.checkpoints.crystal import CrystalBackbone, save_crystal_backbone
from atomrl.chemistry.hull import Hull, HullEntry, HullKey
from atomrl.core.records import Structures
from atomrl.data.prototype_set import HULL_FILE
from atomrl.force_fields.chgnet import CORRECTIONS, model_id
from atomrl.matching.matcher import Verdicts
from atomrl.structures.crystals import check_cells
from benchmarks import __main__ as benchmarks
from benchmarks import crystals, plain_matching
from benchmarks.crystal_source import CrystalSource, sound

ELEMENTS = ("Na", "Cl", "Sr", "Ti", "O", "Cs", "Si", "Ba", "Mg", "Li", "F")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A crystal set with its hull."""
    folder = small_crystal_set.write(tmp_path_factory.mktemp("crystals") / "set")
    key = HullKey(model_id("0.3.0"), CORRECTIONS["0.3.0"], "small")
    Hull(key, [HullEntry(Composition(symbol), -2.0, symbol) for symbol in ELEMENTS]).save(folder / HULL_FILE)
    return folder


@pytest.fixture(scope="module")
def source(folder: Path) -> CrystalSource:
    return CrystalSource.load(folder)


def test_samples_are_the_backbones(source: CrystalSource, folder: Path, tmp_path: Path) -> None:
    shipped = source.samples(6, seed=0)
    assert torch.equal(shipped.positions, source.samples(6, seed=0).positions)
    assert len(source.references) == len(small_crystal_set.CRYSTALS) - small_crystal_set.VALIDATION
    policy = small_policy()
    backbone = CrystalBackbone(policy.vae, policy.trainable(), policy.latent_std, {2: 1, 5: 2})
    save_crystal_backbone(tmp_path / "backbone", backbone, {})
    other = CrystalSource.load(folder, str(tmp_path / "backbone"))
    samples = other.samples(6, seed=0)
    assert set(samples.sizes.tolist()) <= {2, 5}
    assert samples.cell is not None
    assert other.vae is other.backbone.vae


def test_only_sound_cells_are_timed(source: CrystalSource) -> None:
    samples = source.samples(16, seed=0)
    flat = Structures(samples.numbers, samples.positions, samples.mask, samples.cell * torch.tensor([1.0, 1.0, 0.0]))
    assert len(sound(flat)) == 0
    assert set(check_cells(sound(samples))) == {None}


def test_the_command_runs_all_parts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["chgnet", "matching", "reward", "--quick", "--threads", "1", "--turns", "1", "--crystals", str(folder)]
    monkeypatch.setattr("sys.argv", ["benchmarks", *words])
    monkeypatch.setattr(crystals, "WORKERS", 1)
    benchmarks.main()
    lines = capsys.readouterr().out.splitlines()[2:]
    starts = ["CHGNet, ", "CHGNet, ", "matching, ", "the same", "reward, 16 samples", "  cell_checks", "  creativity"]
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=False)] == [True] * len(starts)
    assert "eV/atom" in lines[0]
    assert "not novel" in lines[2]
    assert any(line.startswith("    of which metric_e_above_hull") for line in lines)
    spent = {line.strip().rsplit(maxsplit=1)[0]: float(line.split()[-1]) for line in lines[4:]}
    parts = [seconds for name, seconds in spent.items() if not name.startswith(("of which", "reward"))]
    whole = next(seconds for name, seconds in spent.items() if name.startswith("reward"))
    assert sum(parts) == pytest.approx(whole, abs=0.05)


def test_without_a_set_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "matching", "--crystals", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        benchmarks.main()
    assert caught.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(r"no .* in ", line)


def test_a_verdict_that_differs_is_noticed() -> None:
    samples, references = [ROCK_SALT, ROCK_SALT.copy(), SILICON], [SILICON]
    expected = plain_matching.match(references, samples)
    assert expected == plain_matching.PlainVerdicts([True, False, True], [True, True, False], 2)
    none = (None, None, None)
    right = (Verdicts(np.array(expected.unique), none), Verdicts(np.array(expected.novel), none))
    crystals._compare(expected, right)
    with pytest.raises(ValueError, match=r"novel: 1 verdicts differ .* crystal 2"):
        crystals._compare(expected, (right[0], Verdicts(np.array([True, True, True]), none)))
    with pytest.raises(ValueError, match="unique: 1 verdicts"):
        crystals._compare(expected, (Verdicts(right[0].values, (None, "timeout", None)), right[1]))
