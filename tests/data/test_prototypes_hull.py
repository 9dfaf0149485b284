"""The hull of a finished set by another force field."""

import importlib
import json
import sys

import numpy as np
import pytest
import torch
from data.test_prototypes_finish import fcc, line
from pymatgen.core import Composition, Lattice

from atomrl.chemistry.hull import Hull, HullKey
from atomrl.data.prototype_set import ASSETS, HULL_FILE, hull_file, load_prototypes
from atomrl.force_fields.base import Evaluation
from atomrl.force_fields.chgnet import CHGNetForceField
from atomrl.reference import energies as energies_module
from atomrl.structures.cells import Crystal
from atomrl.structures.crystals import compositions, from_crystals
from atomrl.util.errors import UserError
from tools.prototypes import rejudge as module
from tools.prototypes.command import data_command
from tools.prototypes.finish import finish
from tools.prototypes.rejudge import reference_phases, rejudge

ROCK_SALT = [[0, 0, 0], [0.5, 0.5, 0.5]]
THIRDS = [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
RECORDS = [  # as CHGNet relaxes them
    line("bcc|W>Na", Lattice.cubic(4.21), ["Na"] * 2, ROCK_SALT, -1.289, "reference"),
    line("hcp|Mg>Mg", Lattice.hexagonal(3.194, 5.167), ["Mg"] * 2, THIRDS, -1.596, "reference"),
    line("molecule:Cl2|Cl>Cl", Lattice.cubic(8.0), ["Cl"] * 2, [[0, 0, 0], [0, 0, 0.25]], -1.848, "reference"),
    line("molecule:O2|O>O", Lattice.cubic(8.0), ["O"] * 2, [[0, 0, 0], [0, 0, 0.154]], -4.819, "reference"),
    line("NaCl|Na>Na", fcc(5.71), ["Na", "Cl"], ROCK_SALT, -3.668),
    line("CsCl|Cs>Na", Lattice.cubic(3.5), ["Na", "Cl"], ROCK_SALT, -3.58),
    line("NaCl|Na>Mg", fcc(4.252), ["Mg", "O"], ROCK_SALT, -6.314),
]
CRYSTALS, PHASES = 5, 7
PER_ATOM = {"Na": -1.0, "Mg": -1.5, "Cl2": -1.7, "O2": -5.0, "NaCl": -3.0, "MgO": -6.0}


class FakeForceField:
    """By formula; counts the phases that it was asked about and may fail or be interrupted."""

    model_id, correction, elements = "fake-1", "none", frozenset(range(1, 95))

    def __init__(self, failing=(), patience=100):
        self.asked, self.failing, self.patience = [], failing, patience

    def evaluate(self, structures):
        results = []
        for formula, size in zip(compositions(structures), structures.sizes.tolist(), strict=True):
            if len(self.asked) == self.patience:
                raise KeyboardInterrupt
            name = formula.reduced_formula
            self.asked.append(name)
            good = Evaluation(PER_ATOM[name] * size, np.zeros((size, 3)), None)
            results.append(Evaluation.failed(size, "timeout") if name in self.failing else good)
        return results

    def close(self):
        pass


@pytest.fixture
def folder(tmp_path):
    """A finished set."""
    (tmp_path / "relaxed.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    (tmp_path / "build.json").write_text(json.dumps({"seed": 0}))
    finish(tmp_path, tmp_path / "set")
    return tmp_path / "set"


def crystal(record):
    arrays = (np.array(record[name]) for name in ("numbers", "frac_coords", "lattice"))
    return Crystal(*arrays)


def run(folder, force_field):
    return rejudge(folder, folder / "save", folder / "out", force_field, "fake")


def test_every_phase_is_judged_again(folder, capsys):
    hull = run(folder, FakeForceField())
    own = Hull.load(folder / HULL_FILE)
    assert hull.key == HullKey("fake-1", "none", own.key.data_version)
    assert len(hull.entries) == len({entry.entry_id for entry in hull.entries}) == PHASES
    assert hull.elements == own.elements == {8, 11, 12, 17}
    formulas = [Composition(name) for name in ("NaCl", "MgO")]
    above, reasons = hull.energy_above_hull(formulas, [-2.9, -6.0])
    np.testing.assert_allclose(above, [0.1, 0.0], atol=1e-9)
    assert reasons == [None, None]
    loaded = Hull.load(folder / "out" / hull_file("fake"))
    assert {entry.entry_id: entry.energy_per_atom for entry in loaded.entries} == {
        entry.entry_id: entry.energy_per_atom for entry in hull.entries
    }
    printed = capsys.readouterr().out
    assert "7 of 7 phases" in printed
    # Na, Mg, NaCl and MgO are on the set's hull; the molecules are not in the set
    assert "4 phases on the set's own hull are 0.000 eV/atom (median) above this one, 100% of them" in printed


def test_the_set_s_own_hull_is_refused_for_the_other_judge(folder):
    run(folder, FakeForceField())
    key = ("fake-1", "none")
    Hull.load(folder / "out" / hull_file("fake")).require(*key)
    with pytest.raises(UserError, match="model_id"):
        Hull.load(folder / HULL_FILE).require(*key)


def test_molecules_are_those_of_the_hull_s_elements(folder):
    crystals = load_prototypes(folder)
    names, phases = reference_phases(crystals, frozenset({8, 11, 12, 17}))
    assert names[CRYSTALS:] == ["molecule:O2|O>O", "molecule:Cl2|Cl>Cl"]
    assert len(set(names)) == len(phases) == PHASES
    formulas = [formula.reduced_formula for formula in compositions(phases)]
    assert [name.split("|")[1] for name in names[:CRYSTALS]] == formulas[:CRYSTALS]
    ends = phases.positions[CRYSTALS, :2]
    assert torch.linalg.norm(ends[0] - ends[1]).item() == pytest.approx(1.21, abs=1e-5)
    assert len(reference_phases(crystals, frozenset({11, 12}))[0]) == CRYSTALS


def test_interrupted_and_resumed_nothing_is_lost_or_repeated(folder, monkeypatch):
    monkeypatch.setattr(energies_module, "CHUNK", 2)
    first = FakeForceField(patience=5)
    with pytest.raises(KeyboardInterrupt):
        run(folder, first)
    assert not (folder / "out").exists()
    second = FakeForceField()
    hull = run(folder, second)
    assert len(second.asked) == PHASES - 4  # two whole chunks were saved
    assert len(hull.entries) == PHASES
    third = FakeForceField()
    assert len(run(folder, third).entries) == PHASES
    assert third.asked == []


def test_failures_are_left_out_counted_and_tried_again(folder, capsys):
    hull = run(folder, FakeForceField(failing=["MgO"]))
    assert "6 of 7 phases" in capsys.readouterr().out
    assert not hull.holds_compound([8, 12])
    again = FakeForceField()
    assert run(folder, again).holds_compound([8, 12])
    assert again.asked == ["MgO"]
    assert "failures: none" in capsys.readouterr().out


def test_an_element_without_energy_leaves_no_hull(folder):
    with pytest.raises(UserError, match=r"\[8\] \(failures: timeout 1\)"):
        run(folder, FakeForceField(failing=["O2"]))
    assert not (folder / "out").exists()


def test_saved_energies_of_something_else_are_refused(folder):
    run(folder, FakeForceField())
    other = FakeForceField()
    other.model_id = "fake-2"
    with pytest.raises(UserError, match="begun with model_id 'fake-1', now it is 'fake-2'"):
        run(folder, other)
    (folder / "save" / "energies-fake.jsonl").write_text('{"settings": \n')
    with pytest.raises(UserError, match="cannot read the energies"):
        run(folder, FakeForceField())


def test_no_set_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="cannot read the hull"):
        run(tmp_path, FakeForceField())


def test_without_the_extra_it_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "sevenn", None)
    monkeypatch.delitem(sys.modules, "atomrl.force_fields.sevennet", raising=False)
    monkeypatch.delattr(importlib.import_module("atomrl.force_fields"), "sevennet", raising=False)
    with pytest.raises(UserError, match=r"pip install 'atomrl\[sevennet\]'"):
        data_command(["hull", "--judge", "sevennet", "--folder", str(folder)])


def test_the_shipped_set_is_read_and_not_written(tmp_path, monkeypatch):
    pytest.importorskip("sevenn", reason="the extra sevennet is not installed: pip install 'atomrl[sevennet]'")
    asked = []
    monkeypatch.setattr(module, "rejudge", lambda *words: asked.append(words[:3]))
    data_command(["hull", "--judge", "sevennet", "--save", str(tmp_path), "--workers", "0"])
    assert asked == [(ASSETS, tmp_path, tmp_path)]


def test_command_line_with_sevennet(folder, capsys):
    """Known phases are on SevenNet's own hull; salt in caesium chloride's structure is as far above it as by CHGNet."""
    pytest.importorskip("sevenn", reason="the extra sevennet is not installed: pip install 'atomrl[sevennet]'")
    save = ["--save", str(folder / "save")]
    data_command(["hull", "--judge", "sevennet", "--folder", str(folder), "--workers", "0", *save])
    assert "100% of them at most 0.1" in capsys.readouterr().out
    hull = Hull.load(folder / "hull-sevennet-0.json")
    assert hull.key.model_id.startswith("sevennet-0-11jul2024-")
    assert hull.key.correction == "MP2020"
    energies = {entry.entry_id.rpartition("|")[0]: entry for entry in hull.entries}
    phases = [energies[name] for name in ("bcc|Na", "NaCl|NaCl", "NaCl|MgO", "CsCl|NaCl")]
    above, _ = hull.energy_above_hull([p.composition for p in phases], [p.energy_per_atom for p in phases])
    np.testing.assert_allclose(above[:3], 0.0, atol=1e-6)
    stable, strained = CHGNetForceField().evaluate(from_crystals([crystal(RECORDS[4]), crystal(RECORDS[5])]))
    assert above[3] == pytest.approx((strained.energy - stable.energy) / 2, abs=0.04)
    assert above[3] > 0.05
    elements = [energies[name].energy_per_atom for name in ("bcc|Na", "molecule:Cl2")]
    assert energies["NaCl|NaCl"].energy_per_atom - np.mean(elements) == pytest.approx(-2.13, abs=0.2)  # measured
    data_command(["hull", "--judge", "sevennet", "--folder", str(folder), "--workers", "0", *save])
    assert "7 crystals, 7 done, 0 to do" in capsys.readouterr().out
