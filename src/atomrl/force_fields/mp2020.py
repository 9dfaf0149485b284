"""Materials Project's 2020 energy corrections, for models that were trained on raw DFT energies.

Raw energies of one set of reference data are not comparable with each other: oxides and fluorides of V, Cr, Mn, Fe, Co,
Ni, Mo and W are computed with PBE+U, all else with PBE, so that raw hulls are wrong by electronvolts where both meet;
and PBE misses part of the energy of anions. The scheme repairs both.

Source: Wang et al. 2021, doi 10.1038/s41598-021-94550-5, as pymatgen implements it.
"""

from __future__ import annotations

import warnings
from functools import cache, lru_cache
from math import inf

from atomrl.structures.cells import Crystal
from atomrl.util.optional_imports import extra

with extra("crystals"):
    from pymatgen.core import Composition, Species, Structure
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedStructureEntry

MP2020 = "MP2020"
"""Name of the scheme, for the key of a hull."""


def mp2020_correction(crystal: Crystal) -> float:
    """What to add to the raw energy of a cell, eV.

    `likely_oxidation_states` tells which elements are anions. The scheme's own guess is the same, but it tries all
    combinations, which takes long for many elements, and gives up beyond 20 atoms in the reduced formula: there only
    the most electronegative element would be an anion, which costs Li14Cl4O5 the correction of chlorine, 0.11 eV/atom.

    It depends on the composition, and on the geometry by class only: whether oxygen is an oxide, peroxide, superoxide
    or ozonide, whether sulfur is a sulfide. Forces and stress do not change.

    Args:
        crystal: that passed `crystals.check_cells`.
    """
    with warnings.catch_warnings():
        # pymatgen warns where it cannot guess oxidation states (of metals), spglib of exceptions that it will raise
        warnings.simplefilter("ignore")
        structure = Structure(crystal.lattice, crystal.numbers.tolist(), crystal.frac_coords)
        scheme, values = _scheme(), _hubbard_values(structure)
        parameters = {
            "run_type": "GGA+U" if values else "GGA",
            "hubbards": values,
            "software": "none",  # there are no VASP pseudopotentials to check
        }
        data = {"oxidation_states": likely_oxidation_states(structure.composition.reduced_formula)}
        entry = ComputedStructureEntry(structure, 0.0, parameters=parameters, data=data)
        return float(sum(adjustment.value for adjustment in scheme.get_adjustments(entry)))


def _hubbard_values(structure: Structure) -> dict[str, float]:
    """U of each element in eV, as Materials Project sets it by the most electronegative element."""
    elements = structure.composition.elements
    anion = sorted(elements, key=lambda element: element.X)[-1].symbol  # as pymatgen finds it, of noble gases too
    values: dict[str, float] = _scheme().u_settings.get(anion, {})
    return {element.symbol: values[element.symbol] for element in elements if element.symbol in values}


@lru_cache(maxsize=10_000)
def likely_oxidation_states(formula: str) -> dict[str, float]:
    """The likeliest neutral choice of oxidation states, mean over the atoms of each element; {} if there is none.

    The choice of `Composition.oxi_state_guesses`, which tries all combinations of the elements' sums of charges: it
    maximises the sum over atoms of how often the ICSD has the state. Here the elements are added one after the other
    and only the best choice for each total charge is kept, so no formula is too large.

    Args:
        formula: reduced.
    """
    amounts = {element: int(amount) for element, amount in Composition(formula).items()}
    Composition("NaCl").oxi_state_guesses()  # reads the occurrences
    occurrences = Composition.oxi_prob or {}
    best: dict[int, tuple[float, dict[str, float]]] = {0: (0.0, {})}
    for element, amount in amounts.items():
        states = element.icsd_oxidation_states or element.common_oxidation_states
        scores = {state: float(occurrences.get(Species(element.symbol, state), 0)) for state in states}
        sums = {0: 0.0}
        for _ in range(amount):
            sums = _best_sums(sums, scores)
        longer: dict[int, tuple[float, dict[str, float]]] = {}
        for charge, (score, chosen) in best.items():
            for added, gain in sums.items():
                if charge + added not in longer or score + gain > longer[charge + added][0]:
                    longer[charge + added] = (score + gain, {**chosen, element.symbol: added / amount})
        best = longer
    return best[0][1] if 0 in best else {}


def _best_sums(sums: dict[int, float], scores: dict[int, float]) -> dict[int, float]:
    """The best score for each sum of charges, {charge: score}, with one atom more whose states score so."""
    longer: dict[int, float] = {}
    for charge, score in sums.items():
        for state, gain in scores.items():
            longer[charge + state] = max(score + gain, longer.get(charge + state, -inf))
    return longer


@cache
def _scheme() -> MaterialsProject2020Compatibility:
    """The scheme; it reads its tables once."""
    return MaterialsProject2020Compatibility(check_potcar=False)
