import numpy as np
import pytest
from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY
from smact import Element
from smact.screening import pauling_test

from tools.prototypes.candidate import IONIC, REFERENCE, SIMILAR, TEXTBOOK, Candidate
from tools.prototypes.candidates import POLYMORPHS, candidates, formula_of
from tools.prototypes.library import MAX_ATOMS, prototype_structures
from tools.prototypes.recipes import MOLECULE, start_structure
from tools.prototypes.references import ELEMENTS, reference_candidates, textbook_candidates
from tools.prototypes.substitutions import ionic_choices, known_ions, prototype_ions

RUTILE = "A2B_tP6_136_f_a:TiO2"
COUNT = 1200


@pytest.fixture(scope="module")
def queue():
    return candidates(seed=0, limit=COUNT)


def test_every_candidate_is_once_in_the_list(queue):
    assert len(queue) == COUNT
    assert len({candidate.key for candidate in queue}) == COUNT


def test_seed_keys_the_order(queue):
    assert candidates(seed=0, limit=COUNT) == queue
    assert candidates(seed=1, limit=COUNT) != queue


def test_references_then_textbook_compounds_come_first(queue):
    references, textbook = reference_candidates(), textbook_candidates()
    assert queue[: len(references)] == references
    assert queue[len(references) : len(references) + len(textbook)] == textbook
    assert {new for candidate in references for _, new in candidate.elements} == set(ELEMENTS)
    molecules = {candidate.prototype for candidate in references if candidate.prototype.startswith(MOLECULE)}
    assert molecules == {f"{MOLECULE}{name}" for name in ("H2", "N2", "O2", "F2", "Cl2", "Br2", "I2", "S8")}
    formulas = {formula_of(candidate) for candidate in textbook}
    assert formulas >= {"NaCl", "MgO", "SrTiO3", "CsCl", "ZnS", "TiO2"}


def test_elements_and_sizes(queue):
    assert 40 <= len(ELEMENTS) <= 48
    assert {new for candidate in queue for _, new in candidate.elements} <= set(ELEMENTS)
    own = prototype_structures()
    assert all(len(own[candidate.prototype]) <= MAX_ATOMS for candidate in queue if candidate.prototype in own)
    assert len(AFLOW_PROTOTYPE_LIBRARY) == 288
    assert len(own) == sum(len(entry["snl"].structure) <= MAX_ATOMS for entry in AFLOW_PROTOTYPE_LIBRARY)


def test_a_beginning_is_diverse(queue):
    made = [candidate for candidate in queue if candidate.kind in (IONIC, SIMILAR)]
    assert len({candidate.prototype for candidate in made}) > 180
    assert len({frozenset(new for _, new in candidate.elements) for candidate in made}) > 0.6 * len(made)
    formulas = [formula_of(candidate) for candidate in made]
    assert max(formulas.count(formula) for formula in set(formulas)) <= POLYMORPHS
    assert sum(candidate.kind == SIMILAR for candidate in made) < 0.3 * len(made)


def test_ionic_candidates_are_neutral_and_pauling_ordered():
    states: dict[str, list[int]] = {}
    for ion in known_ions():
        states.setdefault(ion.symbol, []).append(ion.charge)
    choices = ionic_choices(RUTILE, prototype_ions(RUTILE))
    assert len(choices) > 50
    for _, elements in choices:
        new = [elements["Ti"], elements["O"]]
        electronegativities = [Element(symbol).pauling_eneg for symbol in new]
        assert any(
            first + 2 * second == 0 and pauling_test([first, second], electronegativities)
            for first in states[new[0]]
            for second in states[new[1]]
        )


def test_the_most_plausible_substitutions_are_known_compounds():
    best = [elements for _, elements in ionic_choices(RUTILE, prototype_ions(RUTILE))[:12]]
    assert {"Ti": "Ti", "O": "O"} in best
    assert {"Ti": "Sn", "O": "O"} in best
    reversed_fluorite = ionic_choices("AB2_cF12_225_a_c:CaF2", prototype_ions("AB2_cF12_225_a_c:CaF2"))
    assert {"Ca": "O", "F": "Li"} in [elements for _, elements in reversed_fluorite]


def test_prototypes_with_bonded_anions_are_not_ionic():
    assert prototype_ions("AB2_cP12_205_a_c:FeS2") is None
    assert prototype_ions("AB3_cP4_221_a_c:Cu3Au") is None
    assert {str(ion) for ion in prototype_ions(RUTILE).values()} == {"Ti4+", "O2-"}


def test_start_volumes_are_sensible(queue):
    for candidate in queue[::40]:
        structure = start_structure(candidate)
        assert 4 < structure.volume / len(structure) < 300
        distances = structure.distance_matrix[~np.eye(len(structure), dtype=bool)]
        assert len(structure) == 1 or distances.min() > 0.5


def test_the_prototype_of_an_element_itself_is_unchanged():
    graphite = Candidate.make(REFERENCE, "A_hP4_194_bc:C", {"C": "C"})
    assert start_structure(graphite) == prototype_structures()["A_hP4_194_bc:C"]


def test_start_of_a_metal_has_its_atomic_volume():
    aluminium = start_structure(Candidate.make(REFERENCE, "A_cF4_225_a:Cu", {"Cu": "Al"}))
    assert aluminium.volume == pytest.approx(16.6, abs=0.1)  # 10.0 cm^3/mol


def test_molecules_have_their_bond_lengths():
    oxygen = start_structure(Candidate.make(REFERENCE, f"{MOLECULE}O2", {"O": "O"}))
    assert oxygen.get_distance(0, 1) == pytest.approx(1.21)
    sulfur = start_structure(Candidate.make(REFERENCE, f"{MOLECULE}S8", {"S": "S"}))
    distances = sulfur.distance_matrix[0]
    assert sorted(distances)[1:3] == pytest.approx([2.05, 2.05])
    assert sulfur.get_angle(7, 0, 1) == pytest.approx(107.8)


def test_textbook_substitutions_follow_the_formulas():
    keys = {candidate.key for candidate in textbook_candidates()}
    assert "AB2_cF12_225_a_c:CaF2|Ca>O,F>Li" in keys
    assert "ABC_cF12_216_b_c_a:MgAgAs|Ag>Sn,As>Ni,Mg>Zr" in keys
    assert all(candidate.kind == TEXTBOOK for candidate in textbook_candidates())
