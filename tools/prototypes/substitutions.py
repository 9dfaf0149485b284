"""Which elements may replace a prototype's own, and how plausible each choice is."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymatgen.analysis.structure_prediction.substitution_probability import SubstitutionProbability
from pymatgen.core import Composition, Element
from smact.utils.oxidation import ICSD24OxStatesFilter

from tools.prototypes.candidate import IONIC, SIMILAR
from tools.prototypes.library import prototype_structures
from tools.prototypes.references import ELEMENTS

ANION_CHARGES: Mapping[str, int] = {
    **dict.fromkeys(("H", "F", "Cl", "Br", "I"), -1),
    **dict.fromkeys(("O", "S", "Se", "Te"), -2),
    **dict.fromkeys(("N", "P", "As", "Sb"), -3),
    "C": -4,
}
"""Charges of simple anions. Others (S2 pairs, nets of B) are bonded to each other, so such prototypes are `similar`."""

ANTITYPE_IONS = {1: "Na+", 2: "Mg2+", 3: "Al3+", -1: "F-", -2: "O2-", -3: "N3-", -4: "C4-"}
"""What a prototype's ions stand for when anions and cations change places, as Li2O is CaF2 reversed."""

PER_SITE = {2: 60, 3: 30, 4: 14}
"""Most probable ions per element of the prototype, by its number of elements; their combinations are enumerated."""

PER_SITE_SIMILAR = {1: 8, 2: 16, 3: 10, 4: 6}

MOST = 500
"""Substitutions per prototype, at most."""

PETTIFOR_SCALE, RADIUS_SCALE = 8.0, 0.12
"""How far apart on the Pettifor scale and in the logarithm of the radius two elements may be and still be similar."""

MOLECULAR = frozenset({"AB_hR16_148_cf_cf:HC", "AB_cP8_198_a_a:CO", "ABC_oP6_59_a_a_a:CNCl"})
"""Crystals of molecules whose bonds no other elements make."""

Choice = tuple[float, dict[str, str]]
"""Log-plausibility and the substitution {prototype's element: new element}."""


@dataclass(frozen=True)
class Ion:
    """An element in an oxidation state, e.g. Ti4+."""

    symbol: str
    charge: int

    def __str__(self) -> str:
        size = "" if abs(self.charge) == 1 else str(abs(self.charge))
        return f"{self.symbol}{size}{'+' if self.charge > 0 else '-'}"


@cache
def known_ions() -> tuple[Ion, ...]:
    """Oxidation states of the set's elements by SMACT's 2024 count in the ICSD.

    States of at least 5 % of an element's entries; hydride is added, which makes 4 % of hydrogen's.
    """
    table = ICSD24OxStatesFilter().filter(consensus=3, include_zero=False, commonality=5)
    states = dict(zip(table["element"], table["oxidation_state"], strict=True))
    ions = [Ion(symbol, int(charge)) for symbol in ELEMENTS for charge in states[symbol].split()]
    return tuple(dict.fromkeys([*ions, Ion("H", -1)]))


def prototype_ions(label: str) -> dict[str, Ion] | None:
    """The ions of an ionic prototype, or None where the elements do not have simple, integer oxidation states."""
    guesses = prototype_structures()[label].composition.reduced_composition.oxi_state_guesses()
    if not guesses:
        return None
    ions = {symbol: Ion(symbol, round(charge)) for symbol, charge in guesses[0].items()}
    exact = all(charge == ions[symbol].charge != 0 for symbol, charge in guesses[0].items())
    simple = all(ANION_CHARGES.get(ion.symbol) == ion.charge for ion in ions.values() if ion.charge < 0)
    return ions if exact and simple and len(ions) > 1 else None


@cache
def substitutions(label: str) -> tuple[str, list[Choice]]:
    """Whether a prototype is `ionic` or its elements are replaced by `similar` ones, and the substitutions so found."""
    ions = prototype_ions(label)
    return (SIMILAR, similar_choices(label)) if ions is None else (IONIC, ionic_choices(label, ions))


def ionic_choices(label: str, ions: Mapping[str, Ion]) -> list[Choice]:
    """Neutral, Pauling-ordered substitutions, most probable first; of binaries also with cations and anions reversed.

    The plausibility is the sum over elements of the log-probability that an ion replaces the prototype's
    (Hautier et al., Inorg. Chem. 50, 656 (2011)).
    """
    composition = prototype_structures()[label].composition
    found = _neutral(composition, {symbol: str(ion) for symbol, ion in ions.items()})
    reversed_charges = [-ion.charge for ion in ions.values()]
    if len(ions) == 2 and all(charge in ANTITYPE_IONS for charge in reversed_charges):
        names = dict(zip(ions, (ANTITYPE_IONS[charge] for charge in reversed_charges), strict=True))
        found += _neutral(composition, names)
    best: dict[tuple[str, ...], Choice] = {}
    for choice in sorted(found, key=lambda choice: -choice[0]):  # several charges can give the same elements
        best.setdefault(tuple(choice[1].values()), choice)
    return list(best.values())[:MOST]


def similar_choices(label: str) -> list[Choice]:
    """Substitutions by elements near on the Pettifor scale and of like size, most similar first."""
    symbols = sorted(str(element) for element in prototype_structures()[label].composition)
    sites = []
    for old in symbols:
        ranked = sorted(((_similarity(old, new), new) for new in ELEMENTS), reverse=True)
        sites.append(ranked[: PER_SITE_SIMILAR.get(len(symbols), 4)])
    choices = []
    for combination in itertools.product(*sites):
        new = [name for _, name in combination]
        if len(set(new)) == len(new):
            choices.append((sum(score for score, _ in combination), dict(zip(symbols, new, strict=True))))
    return sorted(choices, key=lambda choice: (-choice[0], tuple(choice[1].values())))[:MOST]


def _neutral(composition: Composition, ions: Mapping[str, str]) -> list[Choice]:
    """All neutral, Pauling-ordered combinations of the most probable ions per element."""
    symbols = sorted(ions)
    count = PER_SITE.get(len(symbols), 8)
    sites = [_replacements(ions[symbol])[:count] for symbol in symbols]
    grid = np.indices([len(site) for site in sites]).reshape(len(sites), -1)
    charge, score = np.zeros(grid.shape[1]), np.zeros(grid.shape[1])
    highest_cation, lowest_anion = np.zeros(grid.shape[1]), np.full(grid.shape[1], np.inf)
    for symbol, site, index in zip(symbols, sites, grid, strict=True):
        charges = np.array([ion.charge for _, ion in site])[index]
        electronegativity = np.array([float(Element(ion.symbol).X) for _, ion in site])[index]
        charge += charges * composition[symbol]
        score += np.array([log_probability for log_probability, _ in site])[index]
        highest_cation = np.maximum(highest_cation, np.where(charges > 0, electronegativity, 0.0))
        lowest_anion = np.minimum(lowest_anion, np.where(charges < 0, electronegativity, np.inf))
    allowed: NDArray[np.intp] = np.flatnonzero((charge == 0) & (highest_cation < lowest_anion))
    choices = []
    for column in allowed[np.argsort(-score[allowed], kind="stable")][:MOST]:
        new = [site[index][1].symbol for site, index in zip(sites, grid[:, column], strict=True)]
        if len(set(new)) == len(new):
            choices.append((float(score[column]), dict(zip(symbols, new, strict=True))))
    return choices


@cache
def _substitution_model() -> Any:
    return SubstitutionProbability()  # type: ignore[no-untyped-call]


@cache
def _replacements(old: str) -> list[tuple[float, Ion]]:
    """All ions with their log-probability to replace this one, up to a constant, most probable first."""
    scored = [(float(_substitution_model().get_lambda(str(ion), old)), ion) for ion in known_ions()]
    return sorted(scored, key=lambda pair: (-pair[0], str(pair[1])))


def _similarity(old: str, new: str) -> float:
    """Minus the squared distance of two elements on the Pettifor scale and in size (unknown for some actinides)."""
    first, second = Element(old), Element(new)
    pettifor = (first.mendeleev_no - second.mendeleev_no) / PETTIFOR_SCALE
    if first.atomic_radius is None or second.atomic_radius is None:
        return float(-(pettifor**2))
    radius = np.log(float(first.atomic_radius) / float(second.atomic_radius)) / RADIUS_SCALE
    return float(-(pettifor**2) - radius**2)
