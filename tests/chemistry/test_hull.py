"""The hull of formation energies: agreement with pymatgen, keys, candidates that it cannot judge."""

import json

import numpy as np
import pytest
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition

from atomrl.chemistry import hull as hull_module
from atomrl.chemistry.hull import Hull, HullEntry, HullKey
from atomrl.util.errors import UserError

KEY = HullKey("chgnet-0.3.0-abc", "MP2020", "prototypes-1")
ELEMENTS = ("Na", "Cl", "Mg", "O", "Ti", "Sr")


def entries_of(pairs):
    return [HullEntry(Composition(formula), energy, f"id-{row}") for row, (formula, energy) in enumerate(pairs)]


SALT = [("Na", -1.3), ("Na", -1.2), ("Cl2", -1.8), ("NaCl", -3.6), ("NaCl", -3.5), ("NaCl3", -2.4), ("Mg", -1.5)]


@pytest.fixture(scope="module")
def many():
    """A hull of 150 random phases of six elements, and the same as pymatgen entries."""
    rng = np.random.default_rng(0)
    pairs = [(element, rng.normal()) for element in ELEMENTS]
    for _ in range(150):
        chosen = rng.choice(ELEMENTS, rng.integers(2, 5), replace=False)
        composition = Composition({element: int(rng.integers(1, 4)) for element in chosen})
        pairs.append((composition, rng.normal(-0.5)))
    entries = [HullEntry(Composition(formula), float(energy), "") for formula, energy in pairs]
    return Hull(KEY, entries), [PDEntry(e.composition, e.energy_per_atom * e.composition.num_atoms) for e in entries]


def test_agrees_with_pymatgen(many):
    hull, entries = many
    rng = np.random.default_rng(1)
    candidates = [
        Composition({e: int(rng.integers(1, 4)) for e in rng.choice(ELEMENTS, rng.integers(1, 7), replace=False)})
        for _ in range(60)
    ]
    energies = rng.normal(size=60)
    values, reasons = hull.energy_above_hull(candidates, energies)
    assert reasons == [None] * 60
    diagram = PhaseDiagram(entries)
    expected = [
        energy - diagram.get_hull_energy_per_atom(composition)
        for composition, energy in zip(candidates, energies, strict=True)
    ]
    np.testing.assert_allclose(values, expected, atol=1e-7)


@pytest.mark.parametrize("lot", [1024, 4])
def test_a_batch_gives_what_its_parts_give(many, lot, monkeypatch):
    """And never compares more candidates with all phases at once than a lot has, for the memory's sake."""
    seen = []
    plain = hull_module._within
    monkeypatch.setattr(hull_module, "SYSTEMS_AT_ONCE", lot)
    monkeypatch.setattr(hull_module, "_within", lambda rows, holds: seen.append(len(rows)) or plain(rows, holds))
    hull, _ = many
    candidates = [Composition(formula) for formula in ("NaCl", "SrTiO3", "MgO", "Na2Mg3Cl4O5", "Ti")] * 3
    together, _ = hull.energy_above_hull(candidates, np.zeros(15))
    alone = [hull.energy_above_hull([candidate], [0.0])[0][0] for candidate in candidates]
    np.testing.assert_allclose(together, alone, atol=1e-7)
    assert hull.hold_compounds(candidates).tolist() == [True, True, True, True, False] * 3
    assert max(seen) == min(lot, 15)


def test_references_are_on_or_above_their_hull(many):
    hull, entries = many
    values, _ = hull.energy_above_hull(
        [entry.composition for entry in entries], [entry.energy_per_atom for entry in entries]
    )
    stable = {id(entry) for entry in PhaseDiagram(entries).stable_entries}
    assert values.min() > -1e-7
    for entry, value in zip(entries, values, strict=True):
        assert (value < 1e-7) == (id(entry) in stable)


def test_values_by_hand():
    hull = Hull(KEY, entries_of(SALT))
    values, reasons = hull.energy_above_hull(
        [Composition(formula) for formula in ("NaCl", "Na2Cl2", "Na3Cl", "Cl", "Na")], [-3.6, -4.0, -2.0, -1.7, -1.3]
    )
    # Na3Cl is half NaCl and half Na
    np.testing.assert_allclose(values, [0.0, -0.4, -2.0 + (3.6 + 1.3) / 2, 0.1, 0.0], atol=1e-9)
    assert reasons == [None] * 5


def test_candidates_without_a_value():
    hull = Hull(KEY, [*entries_of(SALT), HullEntry(Composition("NaF"), -5.0, "no pure fluorine")])
    candidates = [Composition("NaF"), Composition("KCl"), Composition({}), Composition("NaCl"), Composition("NaCl")]
    values, reasons = hull.energy_above_hull(candidates, [-5.0, -3.0, -1.0, float("nan"), -3.0])
    assert reasons == ["element_outside_hull", "element_outside_hull", "empty", "no_energy", None]
    assert np.isnan(values).tolist() == [True, True, True, True, False]
    assert hull.elements == {11, 17, 12}
    assert hull.energy_above_hull([], [])[1] == []


def test_whether_a_system_holds_a_compound():
    hull = Hull(KEY, [*entries_of(SALT), HullEntry(Composition("Mg2Cl"), 5.0, "unstable")])
    assert hull.holds_compound({11, 17})
    assert hull.holds_compound({11, 17, 12})  # by its subsystem
    assert not hull.holds_compound({12, 17})
    assert not hull.holds_compound({11})
    systems = [Composition("NaCl"), Composition("MgCl2"), Composition("Na")]
    assert hull.hold_compounds(systems).tolist() == [True, False, False]


def test_many_elements_stay_cheap():
    symbols = [str(element) for element in Composition("HLiBeBCNOFNaMgAlSiPSClKCaScTiV").elements]
    rng = np.random.default_rng(0)
    entries = entries_of([(symbol, 0.0) for symbol in symbols])
    for _ in range(300):
        entries.append(HullEntry(Composition(dict.fromkeys(rng.choice(symbols, 3, replace=False), 1)), -1.0, ""))
    values, _ = Hull(KEY, entries).energy_above_hull([Composition(dict.fromkeys(symbols, 1))], [0.0])
    assert 0.5 < values[0] <= 1.0 + 1e-7


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (("chgnet-0.3.0-other", "MP2020", None), "model_id"),
        (("chgnet-0.3.0-abc", "none", None), "correction"),
        (("chgnet-0.3.0-abc", "MP2020", "prototypes-2"), "data_version"),
    ],
)
def test_other_keys_are_refused(asked, name):
    with pytest.raises(UserError, match=name):
        Hull(KEY, entries_of(SALT)).require(*asked)


def test_own_key_is_accepted():
    hull = Hull(KEY, entries_of(SALT))
    hull.require(KEY.model_id, KEY.correction)
    hull.require(KEY.model_id, KEY.correction, KEY.data_version)


def test_json_round_trip(tmp_path, many):
    hull, _ = many
    path = tmp_path / "hull.json"
    hull.save(path)
    json.loads(path.read_text())
    again = Hull.load(path)
    assert again.key == KEY
    assert again.entries == hull.entries
    candidates = [Composition("SrTiO3"), Composition("NaCl")]
    np.testing.assert_array_equal(
        again.energy_above_hull(candidates, [0, 0])[0], hull.energy_above_hull(candidates, [0, 0])[0]
    )


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("Zz3", "in 'Zz3', Zz.* is no element"),
        ("X2", "is no element"),
        ({"Na": 1}, "is no formula"),
        (None, "it has no entries"),
    ],
)
def test_formulas_that_are_none(tmp_path, formula, words):
    path = tmp_path / "hull.json"
    Hull(KEY, entries_of(SALT)).save(path)
    record = json.loads(path.read_text())
    columns = {"formulas": [formula], "energies_per_atom": [-1.0], "ids": ["a"]}
    for name, values in columns.items():
        record[name] = [] if formula is None else [*record[name], *values]
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=words) as caught:
        Hull.load(path)
    assert "hull.json" in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", '{"format": "other"}', "[1]", '{"format": "atomrl-hull-1"}'])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "hull.json"
    path.write_text(content)
    with pytest.raises(
        UserError, match=r"cannot read the hull .*hull\.json: .*; give a hull that `atomrl data reference`"
    ):
        Hull.load(path)
    with pytest.raises(UserError, match="absent"):
        Hull.load(tmp_path / "absent.json")


def test_failed_references_are_refused():
    with pytest.raises(UserError, match="nan"):
        Hull(KEY, entries_of([("Na", float("nan"))]))
