"""Composition validity by the rules of SMACT: charge neutrality and Pauling's test.

A composition is valid if some choice of one oxidation state per element is neutral and makes every cation less
electronegative than every anion (Davies et al. 2019, doi 10.21105/joss.01361). As is usual in the field (Xie et al.
2022, arXiv:2110.06197), a single element and an alloy (SMACT's list of metals) are valid without the test. The verdicts
are those of `smact.screening.smact_validity`, which tries every combination of states: a product that grows
exponentially with the number of elements. Here it is exact without that. By Pauling's test there is an
electronegativity below which all elements are cations and from which on all are anions; for each of these cuts, which
are at most as many as elements, the charges that the states can add up to are a set of whole numbers no wider than the
number of atoms times twice the largest state. So no formula has to be given up.

With mixed valence every atom may have a state of its own, as in Fe3O4, Pb3O4 and Mn3O4, and atoms of an element may
share a charge in a homonuclear anion, as in KO2. SMACT's own option `mixed_valence` knows 24 elements, lead and oxygen
not among them, and gives up formulas with many atoms; whatever it lets pass passes here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version

from ase.data import chemical_symbols

from atomrl.matching.matcher import Formula
from atomrl.util.errors import UserError
from atomrl.util.optional_imports import extra

OXIDATION_STATES = "icsd24"
"""The published set: `smact_validity(..., oxidation_states_set="icsd24")`, SMACT's list of the states that more than 5
entries of the ICSD of 2024 report.

Without that argument `smact_validity` counts states of 3 entries on and lets more through: one verdict in twenty or
thirty changes. Earlier papers used `smact14`, which also lets more through."""

SETS = {name: f"oxidation_states_{name}" for name in (OXIDATION_STATES, "icsd16", "smact14")}
"""Names of the sets, and SMACT's attribute of an element."""


HOMONUCLEAR_ANIONS = {7: (3,), 8: (2, 3), 53: (3,)}
"""Atoms in anions of charge -1 of one element by atomic number: azide, superoxide, ozonide, triiodide (Greenwood and
Earnshaw, Chemistry of the Elements). Their atoms have no whole oxidation state; where they have one, as in peroxides,
the sets hold it."""


@dataclass(frozen=True)
class ElementRules:
    """What SMACT knows about an element.

    Attributes:
        states: oxidation states; empty if it knows none.
        electronegativity: Pauling's; None if there is none.
        metal: whether it is one.
    """

    states: tuple[int, ...]
    electronegativity: float | None
    metal: bool


def describe(oxidation_states: str = OXIDATION_STATES, mixed_valence: bool = False) -> str:
    """SMACT's version and the set, for the record."""
    known = f"SMACT {version('smact')}, oxidation states {oxidation_states}, Pauling test; elements and alloys pass"
    anions = "azide, superoxide, ozonide and triiodide count as anions"
    return f"{known}; every atom has a state of its own; {anions}" if mixed_valence else known


@lru_cache(maxsize=100_000)
def composition_valid(formula: Formula, oxidation_states: str = OXIDATION_STATES, mixed_valence: bool = False) -> bool:
    """Whether a reduced formula is valid.

    Args:
        formula: as `matcher.reduced_formula` makes it. Nothing, or an element that SMACT does not know, is not valid.
        oxidation_states: `icsd24`, `icsd16` or `smact14`.
        mixed_valence: whether atoms of one element may have different states.

    Raises:
        UserError: another set is asked for.
    """
    table = _rules(oxidation_states)
    elements = [table.get(number) for number, _ in formula]
    known = [element for element in elements if element is not None]
    if not known or len(known) < len(elements):
        return False
    if len(known) == 1 or all(element.metal for element in known):
        return True
    electronegativities = [element.electronegativity for element in known if element.electronegativity is not None]
    if len(electronegativities) < len(known) or not all(element.states for element in known):
        return False
    charges_of = _mixed_charges if mixed_valence else _plain_charges
    return any(_neutral(formula, known, electronegativities, cut, charges_of) for cut in set(electronegativities))


def _neutral(
    formula: Formula,
    elements: Sequence[ElementRules],
    electronegativities: Sequence[float],
    cut: float,
    charges_of: Callable[[int, int, Sequence[int]], set[int]],
) -> bool:
    """Whether the charges can add up to 0 with cations below the cut and anions from it on."""
    charges = {0}
    for (number, atoms), element, electronegativity in zip(formula, elements, electronegativities, strict=True):
        sign = 1 if electronegativity < cut else -1
        states = [state for state in element.states if sign * state >= 0]
        found = charges_of(number if sign < 0 else 0, atoms, states)
        charges = {charge + more for charge in charges for more in found}
    return 0 in charges


def _plain_charges(anion: int, atoms: int, states: Sequence[int]) -> set[int]:
    """What atoms of an element can be charged in all, if they are alike."""
    return {atoms * state for state in states}


def _mixed_charges(anion: int, atoms: int, states: Sequence[int]) -> set[int]:
    """The same if each has its own state, or is part of a homonuclear anion of the element `anion` (0: of none)."""
    parts = [(1, state) for state in states] + [(size, -1) for size in HOMONUCLEAR_ANIONS.get(anion, ())]
    reached: list[set[int]] = [{0}]
    for count in range(1, atoms + 1):
        fitting = [(size, charge) for size, charge in parts if size <= count]
        reached.append({before + charge for size, charge in fitting for before in reached[count - size]})
    return reached[atoms]


@cache
def _rules(oxidation_states: str) -> dict[int, ElementRules]:
    """SMACT's elements by atomic number."""
    if oxidation_states not in SETS:
        raise UserError(f"no set of oxidation states is called {oxidation_states!r}: choose {', '.join(SETS)}")
    with extra("crystals"):  # here and not above: it takes seconds
        import smact  # noqa: PLC0415

    symbols = smact.ordered_elements(1, 103)
    elements = {symbol: smact.Element(symbol) for symbol in symbols}
    return {
        chemical_symbols.index(symbol): ElementRules(
            tuple(vars(element)[SETS[oxidation_states]] or ()), element.pauling_eneg, symbol in smact.metals
        )
        for symbol, element in elements.items()
    }
