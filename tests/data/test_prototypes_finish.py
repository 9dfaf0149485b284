import json

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from atomrl.chemistry.hull import Hull
from atomrl.data.formula_split import split_of
from atomrl.data.prototype_set import CARD_FILE, HULL_FILE, SET_FILE, SPLITS, load_prototypes
from atomrl.util.errors import UserError
from tools.prototypes.check import compare
from tools.prototypes.command import data_command
from tools.prototypes.finish import SHARES, finish

ROCK_SALT = [[0, 0, 0], [0.5, 0.5, 0.5]]
NACL_KEY = "AB_cF8_225_a_b:NaCl|Cl>Cl,Na>Na"


def fcc(a: float) -> Lattice:
    return Lattice([[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]])


def line(key, lattice, symbols, frac_coords, energy, kind="ionic"):
    structure = Structure(lattice, symbols, frac_coords)
    return {
        "key": key,
        "kind": kind,
        "prototype": key.partition("|")[0],
        "elements": [],
        "reason": None,
        "numbers": [site.specie.Z for site in structure],
        "frac_coords": structure.frac_coords.tolist(),
        "lattice": structure.lattice.matrix.tolist(),
        "energy": energy,
        "fmax": 0.01,
        "steps": 3,
        "seconds": 1.0,
        "spacegroup_before": 225,
        "spacegroup": 225,
    }


RECORDS = [
    line("bcc|W>Na", Lattice.cubic(3.4), ["Na"], [[0, 0, 0]], -1.3, "reference"),
    line("molecule:Cl2|Cl>Cl", Lattice.cubic(8.8), ["Cl"] * 2, [[0, 0, 0], [0, 0, 0.23]], -1.9, "reference"),
    line(NACL_KEY, fcc(5.64), ["Na", "Cl"], ROCK_SALT, -3.7),
    line("same|Na>Na", fcc(5.70), ["Na", "Cl"], ROCK_SALT, -3.69),  # a duplicate, higher in energy
    line("CsCl|Cs>Na", Lattice.cubic(3.4), ["Na", "Cl"], ROCK_SALT, -3.6),  # 0.1 above the hull
    line("high|Na>Na", Lattice.cubic(3.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], -3.3),
    line("tight|Na>Na", Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.25, 0, 0]], -9.0),  # atoms overlap
    line("deep|Na>Na", Lattice.cubic(4.0), ["Na", "Cl"], [[0, 0, 0], [0.5, 0, 0.5]], -8.0),
    {"key": "x", "kind": "ionic", "prototype": "x", "elements": [], "reason": "unconverged"},
    {"key": "y", "kind": "ionic", "prototype": "y", "elements": [], "reason": "error: ValueError: what"},
]


@pytest.fixture
def build_folder(tmp_path):
    (tmp_path / "relaxed.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    (tmp_path / "build.json").write_text(json.dumps({"seed": 0, "model": "CHGNet 0.3.0", "model_hash": "abc"}))
    return tmp_path


def test_round_trip(build_folder, tmp_path):
    output = tmp_path / "out"
    finish(build_folder, output)
    found = load_prototypes(output)
    assert [found.prototypes[index] for index in found.prototype_ids] == ["AB_cF8_225_a_b:NaCl", "CsCl", "bcc"]
    assert found.energies.tolist() == pytest.approx([-3.7, -3.6, -1.3])
    assert found.formation_energies.tolist() == pytest.approx([-2.1, -2.0, 0.0], abs=1e-6)
    assert found.energies_above_hull.tolist() == pytest.approx([0.0, 0.1, 0.0], abs=1e-6)
    assert found.sizes.tolist() == [2, 2, 1]
    assert found.spacegroups.tolist() == [225] * 3
    structures = found.structures(torch.tensor([0, 2]))
    assert structures.numbers.tolist() == [[11, 17], [11, 0]]
    assert structures.mask.tolist() == [[True, True], [True, False]]
    assert (structures.positions[1, 1] == 0).all()
    rebuilt = Structure(
        structures.cell[0].numpy(), ["Na", "Cl"], structures.positions[0].numpy(), coords_are_cartesian=True
    )
    assert rebuilt.get_distance(0, 1) == pytest.approx(2.82, abs=1e-3)


def test_card_says_what_was_dropped_and_why(build_folder):
    card = finish(build_folder, build_folder)
    assert card["crystals"] == 3
    assert card["candidates"] == len(RECORDS)
    assert card["failures"] == {"unconverged": 1, "error": 1}
    assert card["dropped"] == {"above_hull": 1, "contact": 1, "duplicate": 1, "formation_energy": 1, "volume": 1}
    assert card["reference_energies"] == {"Cl": -1.9, "Na": -1.3}
    assert sum(card["splits"][name] for name in SPLITS) == 3
    assert card["build"]["model_hash"] == "abc"


def test_hull_holds_molecules_but_no_implausible_energies(build_folder):
    finish(build_folder, build_folder)
    hull = Hull.load(build_folder / HULL_FILE)
    assert hull.elements == frozenset({11, 17})
    assert {entry.entry_id for entry in hull.entries} == {"bcc|W>Na", "molecule:Cl2|Cl>Cl", NACL_KEY}
    assert hull.holds_compound([11, 17])


def test_coordinates_are_in_the_cell_and_cells_are_canonical(build_folder):
    finish(build_folder, build_folder)
    found = load_prototypes(build_folder)
    assert ((found.frac_coords >= 0) & (found.frac_coords < 1)).all()
    assert (torch.linalg.det(found.lattices.double()) > 0).all()
    again = [Lattice.from_parameters(*Lattice(cell.double().numpy()).parameters).matrix for cell in found.lattices]
    assert np.abs(np.stack(again) - found.lattices.numpy()).max() < 1e-4


def test_a_changed_file_is_refused(build_folder):
    finish(build_folder, build_folder)
    path = build_folder / SET_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match="SHA-256"):
        load_prototypes(build_folder)
    (build_folder / CARD_FILE).unlink()
    with pytest.raises(UserError, match=r"no prototypes\.json"):
        load_prototypes(build_folder)


def test_split_is_by_formula_and_seed():
    formulas = [f"Na{n}Cl{m}" for n in range(1, 60) for m in range(1, 60)]
    splits = [split_of(formula, 0, SHARES) for formula in formulas]
    shares = [splits.count(index) / len(splits) for index in range(3)]
    assert shares == pytest.approx([0.9, 0.05, 0.05], abs=0.02)
    assert splits != [split_of(formula, 1, SHARES) for formula in formulas]


def test_comparison_with_experiment():
    chlorine, sodium, salt = RECORDS[1], RECORDS[0], RECORDS[2]
    (row,) = compare([chlorine, sodium, salt])
    assert row.formula == "NaCl"
    assert row.formation_energy == pytest.approx(-2.1)
    assert row.lengths == pytest.approx((5.64,))
    assert row.energy_agrees
    assert row.lengths_agree
    (wrong,) = compare([chlorine, sodium, {**salt, "energy": -4.0}])
    assert not wrong.energy_agrees
    assert compare([sodium, salt]) == []  # chlorine's energy is unknown


def test_command_line(build_folder, capsys):
    data_command(["finish", "--save", str(build_folder)])
    assert "3 crystals of 10 candidates" in capsys.readouterr().out
    data_command(["check", "--save", str(build_folder)])
    printed = capsys.readouterr().out
    assert "-2.100" in printed
    assert "not yet relaxed: CsCl, MgO, SrTiO3, TiO2, ZnS" in printed
    with pytest.raises(UserError, match="no relaxed structures"):
        data_command(["check", "--save", str(build_folder / "nowhere")])
