"""A look-up by formula that must find a crystal, one that must not, and what counts as a match of a prediction."""

import numpy as np
import pytest
import torch
from conditional_crystals import FORMULA, backbone
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, SILICON
from pymatgen.core import Lattice, Structure

from atomrl.core.records import Structures
from atomrl.evaluation.evaluate import SamplePlan
from atomrl.evaluation.nearest_formula import NearestFormulas, mendeleev_numbers, replaced
from atomrl.evaluation.structure_prediction import Prediction, held_out, predict
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.structures.cells import Crystal, to_arrays

CPU = torch.device("cpu")


SALT = ROCK_SALT.get_primitive_structure()


def salt(cation: str, anion: str, like: Structure = SALT) -> Crystal:
    """A salt with other ions."""
    return to_arrays(Structure(like.lattice, [cation, anion], like.frac_coords))


KNOWN = [
    salt("K", "Cl"),
    salt("Cs", "I", like=CAESIUM_CHLORIDE),
    to_arrays(PEROVSKITE),
    to_arrays(SILICON),
    to_arrays(ROCK_SALT),  # eight atoms
]
NA_BR = salt("Na", "Br")
CS_BR = salt("Cs", "Br", like=CAESIUM_CHLORIDE)
BARIUM_TITANATE = to_arrays(Structure(Lattice.cubic(4.01), ["Ba", "Ti", "O", "O", "O"], PEROVSKITE.frac_coords))
"""Crystals to predict: the two salts have the structures of their nearest formulas, KCl and CsI."""


def test_the_nearest_formula_comes_first() -> None:
    look_up = NearestFormulas(KNOWN)
    first, second = look_up.nearest(NA_BR, 5)
    assert (first.row, second.row) == (0, 1)  # neither the perovskite nor the cell of eight atoms
    sodium, potassium, chlorine, bromine = mendeleev_numbers(np.array([11, 19, 17, 35]))
    assert first.distance == pytest.approx((abs(sodium - potassium) + abs(chlorine - bromine)) / 2)
    assert sorted(first.crystal.numbers.tolist()) == [11, 35]
    assert [neighbor.row for neighbor in look_up.nearest(NA_BR, 1)] == [0]
    (titanate,) = look_up.nearest(BARIUM_TITANATE, 5)
    assert sorted(titanate.crystal.numbers.tolist()) == [8, 8, 8, 22, 56]
    barium = int(np.flatnonzero(titanate.crystal.numbers == 56)[0])
    strontium = int(np.flatnonzero(KNOWN[2].numbers == 38)[0])
    assert barium == strontium  # in its place, not in that of titanium
    assert look_up.nearest(to_arrays(SILICON.copy().append("O", [0.1, 0.2, 0.3])), 5) == []


def test_replaced_elements_have_the_volume_of_their_radii() -> None:
    swapped = replaced(KNOWN[0], np.array([17, 19]), np.array([19, 17]))
    assert swapped.numbers.tolist() == KNOWN[0].numbers[::-1].tolist()
    np.testing.assert_allclose(swapped.lattice, KNOWN[0].lattice)
    larger = replaced(KNOWN[0], np.array([17, 19]), np.array([53, 55]))
    assert abs(np.linalg.det(larger.lattice)) > 1.3 * abs(np.linalg.det(KNOWN[0].lattice))


def test_only_formulas_that_are_not_known_are_held_out() -> None:
    assert held_out(KNOWN, [NA_BR, salt("Na", "Cl"), salt("K", "Cl", like=CAESIUM_CHLORIDE), CS_BR]) == [NA_BR, CS_BR]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that makes rock salt of NaBr or of NaI of every cell of two atoms, by chance."""

    def reconstruct(self: CrystalVAE, latents: torch.Tensor, mask: torch.Tensor) -> Structures:
        right = latents[:, 0, 0] > 0
        numbers = torch.where(right[:, None], torch.tensor([11, 35]), torch.tensor([11, 53]))
        cell = torch.tensor(NA_BR.lattice).float().expand(len(mask), 3, 3)
        return Structures(numbers, torch.tensor(NA_BR.frac_coords).float() @ cell, mask > 0, cell)

    monkeypatch.setattr(CrystalVAE, "reconstruct", reconstruct)


@pytest.mark.usefixtures("decoded")
def test_known_answers() -> None:
    """The model finds NaBr and makes rock salt of CsBr's formula never; the look-up finds both, and no oxide."""
    model = backbone((FORMULA,))
    oxide = to_arrays(Structure(Lattice.cubic(4.2), ["Li"] * 3 + ["O"], np.eye(4, 3) / 2))
    wanted = [NA_BR, CS_BR, oxide]
    plan = SamplePlan(count=3, time_step=3, seed=1)
    made = predict(model, KNOWN, wanted, plan, 8, CPU)
    assert made.formulas == ("NaBr", "CsBr", "Li3O")
    assert made.model == [["match"] * 3, ["composition"] * 3, ["size"] * 3]
    assert [each[0] for each in made.look_up[:2]] == ["match", "match"]
    assert made.nearest[0][0][0] == "KCl"
    assert made.nearest[1][0][0] == "CsI"
    assert "match" not in made.look_up[0][1:]  # NaBr by the structure of CsI
    assert made.look_up[2] == []
    assert made.without_candidate == 1
    rates = made.as_json()["match_rate"]
    assert rates["model"]["1"]["value"] == rates["model"]["3"]["value"] == pytest.approx(1 / 3)
    assert rates["nearest_formula"]["1"]["value"] == pytest.approx(2 / 3)
    assert rates["model"]["1"]["denominator"] == 3
    assert 3 + 24 <= made.walks < 24 + 24
    text = made.markdown(["a note"])
    assert "1 matched by both, 0 by the model alone, 1 by the look-up alone, 1 by neither" in text
    assert text.splitlines()[-1] == "- a note"


def test_a_later_guess_counts_for_several_guesses_alone() -> None:
    made = Prediction(
        ("NaCl", "KCl"), (2, 2), 3, [["structure", "match", "overlap"], ["match"] * 3], [["structure"], []], [[], []], 9
    )
    assert [made.rate(made.model, count).value for count in (1, 3)] == [0.5, 1.0]
    assert made.rate(made.look_up, 3).value == 0
    assert made.rate(made.look_up, 3).high > 0.5  # of two crystals nobody knows more
    assert "the first guess | 50.0 [" in made.markdown()
    assert "match 4, structure 1, overlap 1" in made.markdown()
    assert "structure 1, no_candidate 1" in made.markdown()
