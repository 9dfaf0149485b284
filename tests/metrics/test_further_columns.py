"""The table of samples holds what the tables beside the main one are made of: relaxed, second judge, PoseBusters."""

import json
from importlib.util import find_spec
from pathlib import Path

import ase.io
import numpy as np
import pyarrow.parquet as pq
import pytest
from ase.build import molecule
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT

from atomrl.cli import main
from atomrl.domains.molecule_panel import MoleculePanel
from atomrl.evaluation.evaluate import compare
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.evaluation.relaxation import chosen_rows
from atomrl.force_fields.base import Evaluation
from atomrl.structures.molecules import Geometry, split
from atomrl.structures.padding import join

ONE = "reward.workers=1"
HEADING = "some"


def rattled(name: str, size: float = 0.05):
    """A molecule beside its minimum."""
    atoms = molecule(name)
    atoms.positions += size * np.random.default_rng(1).standard_normal(atoms.positions.shape)
    return atoms


def overlapping():
    """Water, two of whose atoms are at one place."""
    atoms = molecule("H2O")
    atoms.positions[1] = atoms.positions[0]
    return atoms


def evaluated(folder: Path, frames, *words: str) -> Path:
    """The folder of an evaluation of these."""
    ase.io.write(folder / f"{HEADING}.extxyz", frames)
    output = folder / "table"
    main(["evaluate", "--structures", str(folder / f"{HEADING}.extxyz"), ONE, "--output", str(output), *words])
    return output


def rows_of(folder: Path) -> list[dict]:
    return pq.read_table(folder / "evaluation.parquet").to_pylist()


def estimates(folder: Path, table: str) -> dict[str, dict]:
    """A table's estimates, {metric: ...}."""
    found = json.loads((folder / f"evaluation_{table}.json").read_text())
    return {name: row["columns"][HEADING] for name, row in found["metrics"].items()}


def failures(folder: Path, table: str) -> dict[str, dict[str, int]]:
    """What failed, as it stands below a table."""
    return json.loads((folder / f"evaluation_{table}.json").read_text())["columns"][HEADING]["failures"]


def mean_of(rows: list[dict], column: str) -> float:
    """Of what is known, as pandas has it."""
    return float(np.mean([row[column] for row in rows if row[column] is not None]))


def median_of(rows: list[dict], column: str) -> float:
    """A sample without a number counts as infinite; of an even number the lower of the two in the middle."""
    values = sorted(np.inf if row[column] is None else row[column] for row in rows)
    return values[(len(values) - 1) // 2]


@pytest.fixture(scope="module")
def molecules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven molecules, of which five are relaxed; two have atoms at one place."""
    names = ("CH3OH", "CH4", "C2H6", "H2CO", "CH3CN")
    frames = [overlapping(), *map(rattled, names), overlapping()]
    return evaluated(tmp_path_factory.mktemp("molecules"), frames, "evaluation.relaxed=5")


def test_relaxed_molecules(molecules: Path) -> None:
    rows, table = rows_of(molecules), estimates(molecules, "relaxed")
    chosen = chosen_rows(7, 5).tolist()
    assert [row for row in range(7) if rows[row]["relaxed"] is not None] == chosen
    others = [rows[row] for row in range(7) if row not in chosen]
    assert {value for row in others for name, value in row.items() if name.startswith("relaxed")} == {None}
    part = [rows[row] for row in chosen]
    for metric, column in {
        "relaxed": "relaxed",
        "same_molecule": "relaxed_same_molecule",
        "molecule_stability": "relaxed_stable",
        "validity": "relaxed_valid",
    }.items():
        assert mean_of(part, column) == pytest.approx(table[metric]["value"])
    for metric, column in {"strain_energy_median": "strain_energy", "rmsd_median": "rmsd"}.items():
        assert median_of(part, f"relaxed_{column}") == pytest.approx(table[metric]["value"])
        assert table[metric]["denominator"] == len(part)
    failed = [row for row in part if not row["relaxed"]]
    assert failed  # one of the two whose atoms overlap is among them
    assert failures(molecules, "relaxed") == {"relaxation": {"overlap": len(failed)}}
    for row in failed:
        assert row["relaxed_reason"] == "overlap"
        assert row["relaxed_strain_energy"] is row["relaxed_rmsd"] is row["relaxed_smiles"] is None
        assert not any(row[f"relaxed_{name}"] for name in ("same_molecule", "stable", "valid"))
    for row in part:
        if row["relaxed_same_molecule"]:
            assert row["relaxed_smiles"] == row["smiles"]


def test_units_and_what_the_columns_depend_on_stand_in_the_schema(molecules: Path) -> None:
    schema = pq.read_schema(molecules / "evaluation.parquet")
    units = {field.name: field.metadata.get(b"unit", b"").decode() for field in schema}
    assert (units["relaxed_strain_energy"], units["relaxed_rmsd"]) == ("eV", "Å")
    about = json.loads(schema.metadata[b"atomrl"])
    written = json.loads((molecules / "evaluation_relaxed.json").read_text())
    assert about["further"] == {"relaxed": {name: written[name] for name in ("profile", "evaluator", "conditions")}}
    assert "BFGS to 0.05 eV/Å" in about["further"]["relaxed"]["conditions"]["geometry"]


class Halved:
    """Stands for a second judge of molecules: the force on each atom is its number, and it does not know nitrogen."""

    elements = frozenset({1, 6, 8})

    def __init__(self) -> None:
        self.asked = 0

    def evaluate(self, structures):
        self.asked += len(structures)
        return [self._one(geometry.numbers) for geometry in split(structures)]

    def _one(self, numbers) -> Evaluation:
        if not self.elements.issuperset(numbers.tolist()):
            return Evaluation.failed(len(numbers), "element")
        if len(numbers) == 3:
            return Evaluation.failed(3, "scf")
        return Evaluation(-1.0, np.repeat(numbers[:, None] / 3**0.5, 3, 1), None)

    def close(self) -> None:
        """Nothing to give back."""


def test_a_second_judge_of_molecules(tmp_path: Path) -> None:
    structures = join(
        [Geometry(atoms.numbers, atoms.positions) for atoms in map(molecule, ("CH4", "H2O", "NH3", "CH3OH"))]
    )
    second, kept = Halved(), KeptSamples(tmp_path / "kept")
    with MoleculePanel(workers=1, second=("half", second)) as panel:
        judged = {HEADING: panel.judge(structures, kept)}
        compare(judged, set(), panel, None, "command", tmp_path / "table")
        assert panel.judge(structures, kept).further["second judge"].summary == (
            judged[HEADING].further["second judge"].summary
        )
    assert second.asked == 4  # what it said is kept for an evaluation that goes on
    rows, table = rows_of(tmp_path / "table"), estimates(tmp_path / "table", "second_judge")
    assert [row["second_judge_reason"] for row in rows] == [None, "scf", "element", None]
    assert [row["second_judge_known_elements"] for row in rows] == [True, True, False, True]
    forces = [row["second_judge_rms_force"] for row in rows]
    assert forces[1] is forces[2] is None
    assert forces[0] == pytest.approx(((36 + 4) / 5) ** 0.5)
    known = [row for row in rows if row["second_judge_known_elements"]]
    assert mean_of(rows, "second_judge_known_elements") == table["known_elements"]["value"]
    assert mean_of(known, "second_judge_rms_force") == pytest.approx(table["rms_force_mean"]["value"])
    assert median_of(known, "second_judge_rms_force") == pytest.approx(table["rms_force_median"]["value"])
    missing = [row["second_judge_rms_force"] is None for row in known]
    assert np.mean(missing) == pytest.approx(table["force_field_failures"]["value"])


@pytest.mark.skipif(find_spec("posebusters") is None, reason="pip install 'atomrl[eval]'")
def test_molecules_that_posebusters_checks(tmp_path: Path) -> None:
    bent = molecule("C6H6")
    bent.positions[1] += [0.0, 0.25, 0.25]
    frames = [molecule("CH4"), bent, overlapping(), molecule("CH3CH2OH")]
    folder = evaluated(tmp_path, frames, "evaluation.posebusters=3")
    rows, table = rows_of(folder), estimates(folder, "PoseBusters")
    chosen = chosen_rows(4, 3).tolist()
    assert [row for row in range(4) if rows[row]["posebusters_all_checks"] is not None] == chosen
    part = [rows[row] for row in chosen]
    for metric, estimate in table.items():
        assert mean_of(part, f"posebusters_{metric}") == pytest.approx(estimate["value"])
    reasons = [row["posebusters_reason"] for row in part if row["posebusters_reason"] is not None]
    assert sum(failures(folder, "PoseBusters")["posebusters"].values()) == len(reasons)
    assert not any(row["posebusters_all_checks"] for row in part if row["posebusters_reason"] is not None)


@pytest.fixture(scope="module")
def crystals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six crystals, of which four are relaxed; the atoms of two overlap, and CHGNet is its own second judge."""
    crushed = CAESIUM_CHLORIDE.copy()
    crushed.translate_sites([1], [0.5, 0.5, 0.5])
    wide = ROCK_SALT.copy()
    wide.scale_lattice(1.1 * wide.volume)
    structures = (crushed, ROCK_SALT, wide, CAESIUM_CHLORIDE, PEROVSKITE, crushed)
    frames = [structure.to_ase_atoms() for structure in structures]
    words = ("evaluation.relaxed=4", "evaluation.second_judge=chgnet")
    return evaluated(tmp_path_factory.mktemp("crystals"), frames, *words)


SHARES = {"structure_validity": "structure_valid"}
"""Columns that are not called as the metrics of which they are shares."""


def check_shares(rows: list[dict], table: dict[str, dict], start: str) -> set[str]:
    """The columns that begin so have the means of the table's rows; the rows that have a column."""
    columns = {metric: f"{start}{SHARES.get(metric, metric)}" for metric in table}
    found = {metric: column for metric, column in columns.items() if column in rows[0]}
    for metric, column in found.items():
        assert mean_of(rows, column) == pytest.approx(table[metric]["value"])
        assert table[metric]["denominator"] == len(rows)
    assert mean_of(rows, f"{start}e_above_hull") == pytest.approx(table["e_above_hull_mean"]["value"])
    assert median_of(rows, f"{start}e_above_hull") == pytest.approx(table["e_above_hull_median"]["value"])
    missing = [row[f"{start}e_above_hull"] is None for row in rows]
    assert np.mean(missing) == pytest.approx(table["evaluation_failures"]["value"])
    return set(found)


BY_ENERGY = {"msun", "sun", "msun_no_compound", "sun_no_compound", "metastable", "stable"}


@pytest.mark.slow  # three workers with CHGNet
def test_relaxed_crystals(crystals: Path) -> None:
    rows, table = rows_of(crystals), estimates(crystals, "relaxed")
    chosen = chosen_rows(6, 4).tolist()
    assert [row for row in range(6) if rows[row]["relaxed"] is not None] == chosen
    others = [rows[row] for row in range(6) if row not in chosen]
    assert {value for row in others for name, value in row.items() if name.startswith("relaxed")} == {None}
    part = [rows[row] for row in chosen]
    assert check_shares(part, table, "relaxed_") == {*BY_ENERGY, "unique", "novel", "structure_validity"}
    assert mean_of(part, "composition_valid") == pytest.approx(table["composition_validity"]["value"])
    failed = [row for row in part if not row["relaxed"]]
    assert failed
    assert failures(crystals, "relaxed")["geometry"] == {"overlap": len(failed)}
    for row in failed:
        assert row["relaxed_reason"] == "overlap"
        assert row["relaxed_e_above_hull"] is row["relaxed_energy_per_atom"] is None
        assert row["relaxed_metastable"] is False
    for row in part:
        if row["relaxed"]:
            assert row["relaxed_energy_per_atom"] <= row["energy_per_atom"] + 1e-3


@pytest.mark.slow
def test_a_second_judge_of_crystals(crystals: Path) -> None:
    rows, table = rows_of(crystals), estimates(crystals, "second_judge")
    assert check_shares(rows, table, "second_judge_") == BY_ENERGY
    assert [row["second_judge_reason"] for row in rows] == ["overlap", None, None, None, None, "overlap"]
    for row in rows:  # the second judge is the first one
        assert row["second_judge_e_above_hull"] == row["e_above_hull"]
        assert row["second_judge_hull_holds_compound"] == row["hull_holds_compound"]
