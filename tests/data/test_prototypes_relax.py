import numpy as np
import pytest
from pymatgen.core import Lattice, Structure

from atomrl.data.prototypes import relax
from atomrl.data.prototypes.candidate import REFERENCE, TEXTBOOK, Candidate
from atomrl.data.prototypes.recipes import start_structure
from atomrl.force_fields.base import Failure


def relaxed(kind, prototype, elements):
    return relax.relax_candidate(
        {"kind": kind, "prototype": prototype, "elements": [[old, new] for old, new in elements.items()]}
    )


def test_rock_salt(capfd):
    salt = relaxed(TEXTBOOK, "AB_cF8_225_a_b:NaCl", {"Na": "Na", "Cl": "Cl"})
    sodium = relaxed(REFERENCE, "A_cF4_225_a:Cu", {"Cu": "Na"})
    chlorine = relaxed(REFERENCE, "molecule:Cl2", {"Cl": "Cl"})
    assert salt["energy"] - (sodium["energy"] + chlorine["energy"]) / 2 == pytest.approx(-2.13, abs=0.2)
    a = (4 * abs(np.linalg.det(salt["lattice"]))) ** (1 / 3)
    assert a == pytest.approx(5.64, rel=0.03)
    assert salt["fmax"] <= 0.1
    assert salt["spacegroup_before"] == salt["spacegroup"] == 225
    assert sorted(salt["numbers"]) == [11, 17]
    assert capfd.readouterr().out == ""


def test_agrees_with_the_calculator_of_chgnet():
    structure = start_structure(Candidate.make(TEXTBOOK, "A2B_tP6_136_f_a:TiO2", {"Ti": "Ti", "O": "O"}))
    structure.perturb(0.05)
    calculator = relax._CHGNetCalculator()
    atoms = structure.to_ase_atoms()
    atoms.calc = calculator
    published = relax._model().predict_structure(structure)
    assert atoms.get_potential_energy() / 6 == pytest.approx(float(published["e"]), abs=1e-5)
    assert np.abs(atoms.get_forces() - published["f"]).max() < 1e-3
    assert np.abs(atoms.get_stress(voigt=False) * 160.21766208 - published["s"]).max() < 1e-2


@pytest.mark.parametrize(
    ("lattice", "symbols", "positions", "reason"),
    [
        (Lattice.cubic(5), ["Na", "Cl"], [[0, 0, 0], [0, 0, 0.001]], "overlap"),
        (Lattice.cubic(1.2), ["Si"], [[0, 0, 0]], "dense"),
        (Lattice.cubic(10), ["Si"], [[0, 0, 0]], "dilute"),
        (Lattice.cubic(6.4), ["Si"], [[0, 0, 0]], "isolated"),
        (Lattice.cubic(5), ["Si"], [[float("nan"), 0, 0]], "nonfinite"),
    ],
)
def test_bad_geometries_never_reach_the_force_field(lattice, symbols, positions, reason):
    with pytest.raises(Failure) as failure:
        relax.relax_structure(Structure(lattice, symbols, positions))
    assert failure.value.reason == reason


def test_no_convergence_is_a_failure(monkeypatch):
    monkeypatch.setattr(relax, "MAX_STEPS", 1)
    with pytest.raises(Failure, match="unconverged"):
        relaxed(TEXTBOOK, "A2B_tP6_136_f_a:TiO2", {"Ti": "Ti", "O": "O"})
    monkeypatch.setattr(relax, "MAX_SECONDS", 0.0)
    with pytest.raises(Failure, match="slow"):
        relaxed(TEXTBOOK, "A2B_tP6_136_f_a:TiO2", {"Ti": "Ti", "O": "O"})
