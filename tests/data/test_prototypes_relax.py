import numpy as np
import pytest
import torch
from ase.calculators.calculator import CalculationFailed
from pymatgen.core import Lattice, Structure

from atomrl.data.prototype_set import load_prototypes
from atomrl.force_fields.chgnet import CHGNetCalculator
from atomrl.workers.failure import Failure
from tools.prototypes import relax
from tools.prototypes.candidate import REFERENCE, TEXTBOOK

ROCK_SALT = "AB_cF8_225_a_b:NaCl"


def relaxed(kind, prototype, elements):
    return relax.relax_candidate(
        {"kind": kind, "prototype": prototype, "elements": [[old, new] for old, new in elements.items()]}
    )


def test_rock_salt(capfd):
    salt = relaxed(TEXTBOOK, ROCK_SALT, {"Na": "Na", "Cl": "Cl"})
    sodium = relaxed(REFERENCE, "A_cF4_225_a:Cu", {"Cu": "Na"})
    chlorine = relaxed(REFERENCE, "molecule:Cl2", {"Cl": "Cl"})
    assert salt["energy"] - (sodium["energy"] + chlorine["energy"]) / 2 == pytest.approx(-2.13, abs=0.2)
    a = (4 * abs(np.linalg.det(salt["lattice"]))) ** (1 / 3)
    assert a == pytest.approx(5.64, rel=0.03)
    assert salt["fmax"] <= 0.1
    assert salt["spacegroup_before"] == salt["spacegroup"] == 225
    assert sorted(salt["numbers"]) == [11, 17]
    assert capfd.readouterr().out == ""


def test_the_recipe_is_that_of_the_shipped_set():
    shipped = load_prototypes()
    built = shipped.card["build"]
    assert (relax.MODEL, relax.model_hash()) == (built["model"], built["model_hash"])
    rows = (shipped.prototype_ids == shipped.prototypes.index(ROCK_SALT)).nonzero()[:, 0]
    salt = rows[(shipped.structures(rows).numbers.sort().values == torch.tensor([11, 17])).all(1)]
    again = relaxed(TEXTBOOK, ROCK_SALT, {"Na": "Na", "Cl": "Cl"})
    assert [again["energy"]] == pytest.approx(shipped.energies[salt].tolist(), abs=1e-4)


@pytest.mark.parametrize(
    ("lattice", "symbols", "positions", "reason"),
    [
        (Lattice.cubic(5), ["Na", "Cl"], [[0, 0, 0], [0, 0, 0.001]], "overlap"),
        (Lattice.cubic(1.2), ["Si"], [[0, 0, 0]], "dense"),
        (Lattice.cubic(10), ["Si"], [[0, 0, 0]], "dilute"),
        (Lattice.cubic(6.4), ["Si"], [[0, 0, 0]], "isolated"),
        (Lattice.cubic(5), ["Si"], [[float("nan"), 0, 0]], "nonfinite"),
        (Lattice.tetragonal(0.9, 1.0), ["H"], [[0, 0, 0]], "dense"),
    ],
)
def test_bad_geometries_never_reach_the_force_field(lattice, symbols, positions, reason):
    with pytest.raises(Failure) as failure:
        relax.relax_structure(Structure(lattice, symbols, positions))
    assert failure.value.reason == reason


@pytest.mark.parametrize(("words", "reason"), [("nonfinite_result", "nonfinite"), ("isolated", "isolated")])
def test_what_the_force_field_refuses_has_the_same_words(monkeypatch, words, reason):
    def refuse(*_):
        raise CalculationFailed(words)

    monkeypatch.setattr(CHGNetCalculator, "calculate", refuse)
    with pytest.raises(Failure) as failure:
        relax.relax_structure(Structure(Lattice.cubic(3), ["Si"], [[0, 0, 0]]))
    assert failure.value.reason == reason


def test_no_convergence_is_a_failure(monkeypatch):
    monkeypatch.setattr(relax, "MAX_STEPS", 1)
    with pytest.raises(Failure, match="unconverged"):
        relaxed(TEXTBOOK, "A2B_tP6_136_f_a:TiO2", {"Ti": "Ti", "O": "O"})
    monkeypatch.setattr(relax, "MAX_SECONDS", 0.0)
    with pytest.raises(Failure, match="slow"):
        relaxed(TEXTBOOK, "A2B_tP6_136_f_a:TiO2", {"Ti": "Ti", "O": "O"})
