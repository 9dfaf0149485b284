"""Composition validity: known formulas, SMACT's own verdicts, and formulas that SMACT would take ages for."""

import time

import numpy as np
import pytest
import torch
from ase.data import chemical_symbols
from pymatgen.core import Composition
from smact.screening import smact_validity

from atomrl.data.prototype_set import load_prototypes
from atomrl.matching.matcher import reduced_formula
from atomrl.measures.crystal_validity import composition_valid, describe
from atomrl.structures.crystals import to_crystals
from atomrl.util.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore:No Pauling electronegativity")


def formula_of(text):
    composition, _ = Composition(text).get_integer_formula_and_factor()
    return tuple(sorted((element.Z, int(amount)) for element, amount in Composition(composition).items()))


@pytest.mark.parametrize("text", ["NaCl", "MgO", "SrTiO3", "CsCl", "LiFePO4", "Si", "He", "CuZn", "Fe3O8Ti2"])
def test_valid(text):
    assert composition_valid(formula_of(text))


@pytest.mark.parametrize(
    ("text", "why"),
    [("NaCl2", "not neutral"), ("Na2Cl", "not neutral"), ("HeO", "helium has no states"), ("ArXe", "none has")],
)
def test_not_valid(text, why):
    assert not composition_valid(formula_of(text)), why


@pytest.mark.parametrize(
    "text",
    [
        *("Fe3O4", "Pb3O4", "Mn3O4", "Co3O4", "Eu3S4", "Ti4O7", "Fe7S8", "In5S4", "Sb2O4"),
        *("KO2", "CsO2", "KO3", "NaN3", "Ba(N3)2", "CsI3"),
    ],
)
def test_mixed_valence_is_an_option(text):
    assert composition_valid(formula_of(text), mixed_valence=True)
    if text not in {"Sb2O4", "NaN3", "Ba(N3)2"}:  # which one state for each element explains, if an odd one
        assert not composition_valid(formula_of(text))


@pytest.mark.parametrize("text", ["NaCl2", "Na2Cl", "KO4", "HeO", "ArXe", "OF6", "LiF2", "K2I3"])
def test_mixed_valence_does_not_explain_everything(text):
    assert not composition_valid(formula_of(text), mixed_valence=True)


def test_mixed_valence_lets_pass_what_smact_lets_pass_and_more():
    """SMACT's own option, within the number of atoms that it can do."""
    rng = np.random.default_rng(1)
    pool = ["Fe", "Mn", "Cu", "Sn", "Eu", "O", "S", "F", "Na", "Al", "Cl", "N", "Pb", "K"]
    changed = 0
    for _ in range(120):
        chosen = rng.choice(pool, rng.integers(2, 4), replace=False)
        text = "".join(f"{symbol}{rng.integers(1, 5)}" for symbol in chosen)
        plain, mixed = (composition_valid(formula_of(text), mixed_valence=option) for option in (False, True))
        assert mixed or not plain
        assert mixed or not smact_validity(text, oxidation_states_set="icsd24", mixed_valence=True), text
        changed += mixed != plain
    assert changed > 2


def test_mixed_valence_of_many_atoms_takes_no_time():
    composition_valid(formula_of("NaCl"))
    start = time.perf_counter()
    composition_valid(formula_of("Fe61Mn53S47O97N7"), mixed_valence=True)
    assert time.perf_counter() - start < 1


def test_an_anion_must_be_more_electronegative():
    assert composition_valid(formula_of("NF3"))
    assert not composition_valid(formula_of("OF6"))


def test_nothing_and_strangers_are_not_valid():
    assert not composition_valid(())
    assert not composition_valid(((110, 1),))
    assert not composition_valid(((8, 1), (110, 1)))


@pytest.mark.parametrize("states", ["icsd24", "icsd16", "smact14"])
def test_agrees_with_smact(states):
    rng = np.random.default_rng(0)
    pool = ["H", "Li", "C", "N", "O", "F", "Na", "Al", "Si", "P", "S", "Cl", "Ti", "Fe", "Cu", "As", "Pm", "La", "Ar"]
    verdicts = []
    for _ in range(150):
        chosen = rng.choice(pool, rng.integers(2, 5), replace=False)
        text = "".join(f"{symbol}{rng.integers(1, 5)}" for symbol in chosen)
        verdicts.append(composition_valid(formula_of(text), states))
        assert verdicts[-1] == smact_validity(text, oxidation_states_set=states), text
    assert 20 < sum(verdicts) < 130


def test_many_elements_take_no_time():
    composition_valid(formula_of("NaCl"))
    start = time.perf_counter()
    # more than 5e9 combinations of states
    composition_valid(formula_of("Fe2Mn3Cr5V7Mo11N13P17S19Cl23Se29H31As37"))
    assert time.perf_counter() - start < 0.5


def test_the_set_is_named():
    assert "icsd24" in describe()
    assert "smact14" in describe("smact14")
    assert "every atom has a state of its own" in describe(mixed_valence=True)
    with pytest.raises(UserError, match="smact99"):
        composition_valid(formula_of("NaCl"), "smact99")


def test_the_set_is_not_the_default_of_smact():
    """As published: `oxidation_states_set='icsd24'`. Without it SMACT counts rarer states too, and verdicts change."""
    changed = [
        text
        for text in ("AgO", "CoS2", "CrS2", "CsO2", "FeO3", "NiF4", "Ag2F3", "TlCl2", "PbI3", "CuF4", "MoBr4")
        if smact_validity(text, oxidation_states_set="icsd24") != smact_validity(text)
    ]
    assert changed
    for text in changed:
        assert composition_valid(formula_of(text)) == smact_validity(text, oxidation_states_set="icsd24")


@pytest.mark.parametrize("text", ["B5Co2", "B2Zn5", "PSb2", "AsSb2", "CF5O"])
def test_states_that_few_entries_report_do_not_count(text):
    assert smact_validity(text)
    assert not smact_validity(text, oxidation_states_set="icsd24")
    assert not composition_valid(formula_of(text))


def mutated(formula, draw):
    """One atom more of an element, and of every other formula an atom of any element too."""
    counts = dict(formula)
    counts[int(draw.choice(list(counts)))] += 1
    if draw.random() < 0.5:
        added = int(draw.integers(1, 100))
        counts[added] = counts.get(added, 0) + 1
    return tuple(sorted(counts.items()))


def test_agrees_with_the_published_call_on_real_and_unbalanced_formulas():
    crystals = load_prototypes()
    draw = np.random.default_rng(0)
    real = [reduced_formula(crystal) for crystal in to_crystals(crystals.structures(torch.arange(0, 4376, 14)))]
    formulas = [*real, *(mutated(formula, draw) for formula in real)]
    compositions = [Composition({chemical_symbols[z]: count for z, count in formula}) for formula in formulas]
    expected = [smact_validity(composition, oxidation_states_set="icsd24") for composition in compositions]
    assert len(real) > 300
    assert 50 < expected.count(False) < 500
    assert [composition_valid(formula) for formula in formulas] == expected
    assert [smact_validity(composition) for composition in compositions] != expected
