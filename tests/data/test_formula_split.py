"""`atomrl data split`: joined, split by formula, nothing lost."""

import csv
from pathlib import Path

import pytest
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, SILICON
from pymatgen.core import Structure

from atomrl.cli import main
from atomrl.data.crystal_csv import load_crystal_csv
from atomrl.data.formula_split import _columns, split_of

HEADER = ("", "material_id", "cif", "gap")
METALS = ("Li", "Na", "K", "Rb", "Cs", "Ag", "Tl")
HALIDES = ("F", "Cl", "Br", "I")


def rock_salt(metal: str, halide: str) -> Structure:
    """Rock salt of other elements."""
    crystal = ROCK_SALT.copy()
    crystal.replace_species({"Na": metal, "Cl": halide})
    return crystal


def write(path: Path, crystals: list[Structure], start: int, header: tuple[str, ...] = HEADER) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number, crystal in enumerate(crystals, start=start):
            writer.writerow([number, f"id-{number}", crystal.to(fmt="cif"), number / 7])
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """28 halides in two files, four of them twice, and a row that is no CIF."""
    folder = tmp_path_factory.mktemp("split")
    halides = [rock_salt(metal, halide) for metal in METALS for halide in HALIDES]
    first = write(folder / "a.csv", halides[:20], 0)
    with first.open("a", newline="") as file:
        csv.writer(file).writerow([20, "broken", "this is no CIF", 1.0])
    return [first, write(folder / "b.csv", halides[16:], 21)]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_no_formula_is_in_two_splits(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    output = tmp_path / "halides"
    main(["data", "split", *map(str, files), "--output", str(output), "--shares", "60", "20", "20"])
    splits = {name: rows(output / f"{name}.csv") for name in ("train", "val", "test")}
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"{len(splits['train'])} train, {len(splits['val'])} val, {len(splits['test'])} test -> {output}"
    )
    given = {row["material_id"]: row for path in files for row in rows(path) if row["material_id"] != "broken"}
    kept = {row["material_id"]: row for part in splits.values() for row in part}
    assert set(kept) == set(given)
    assert all(kept[name]["cif"] == row["cif"] and kept[name]["gap"] == row["gap"] for name, row in given.items())
    formulas = {name: {row["cif"].split("data_")[1].split()[0] for row in part} for name, part in splits.items()}
    assert not formulas["train"] & formulas["val"]
    assert not formulas["train"] & formulas["test"]
    assert not formulas["val"] & formulas["test"]
    assert len(load_crystal_csv(output / "test.csv", tmp_path / "cache", workers=1)) == len(splits["test"])


def test_shares_and_seed() -> None:
    formulas = [f"A{number}" for number in range(2000)]
    dealt = [split_of(formula, 0, (80, 10, 10)) for formula in formulas]
    assert [round(dealt.count(place) / 200) for place in range(3)] == [8, 1, 1]
    assert dealt == [split_of(formula, 0, (0.8, 0.1, 0.1)) for formula in formulas]
    assert dealt != [split_of(formula, 1, (80, 10, 10)) for formula in formulas]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shares", "80", "20", "0"], "--shares 80 20 0 --seed 0: give positive shares and a seed from 0"),
        (["--shares", "1", "1e-9", "1"], "no crystal for val: give more crystals, or other --shares"),
    ],
)
def test_what_cannot_be(
    words: list[str],
    said: str,
    files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as ended:
        main(["data", "split", *map(str, files), "--output", str(tmp_path / "out"), *words])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {said}"
    assert not list((tmp_path / "out").glob("*.csv"))


def test_files_of_two_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = write(tmp_path / "a.csv", [PEROVSKITE, SILICON], 0)
    second = write(tmp_path / "b.csv", [CAESIUM_CHLORIDE], 2, ("", "material_id", "cif", "energy"))
    with pytest.raises(SystemExit):
        main(["data", "split", str(first), str(second), "--output", str(tmp_path / "out")])
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {second} has the columns material_id, cif, energy, {first} has ")


def test_one_file_may_have_the_index_of_pandas(tmp_path: Path) -> None:
    """And another one may not."""
    with_index, without = tmp_path / "a.csv", tmp_path / "b.csv"
    with_index.write_text(",material_id,cif,gap\n")
    without.write_text("gap,material_id,cif\n")
    assert _columns([with_index, without]) == ["material_id", "cif", "gap"]


def test_what_is_there_stays(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "val.csv").write_text("mine")
    with pytest.raises(SystemExit):
        main(["data", "split", str(files[0]), "--output", str(tmp_path)])
    assert f"{tmp_path / 'val.csv'}: already there" in capsys.readouterr().err
    assert (tmp_path / "val.csv").read_text() == "mine"
