"""Materials Project's 2020 energy corrections, for models that were trained on raw DFT energies.

Raw energies of one set of reference data are not comparable with each other: oxides and fluorides of V, Cr, Mn, Fe, Co,
Ni, Mo and W are computed with PBE+U, all else with PBE, so that raw hulls are wrong by electronvolts where both meet;
and PBE misses part of the energy of anions. The scheme repairs both.

Source: Wang et al. 2021, doi 10.1038/s41598-021-94550-5, as pymatgen implements it.
"""

from __future__ import annotations

import warnings
from functools import cache

from atomrl.structures.cells import Crystal
from atomrl.util.optional_imports import extra

with extra("crystals"):
    from pymatgen.core import Structure
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility
    from pymatgen.entries.computed_entries import ComputedStructureEntry

MP2020 = "MP2020"
"""Name of the scheme, for the key of a hull."""


def mp2020_correction(crystal: Crystal) -> float:
    """What to add to the raw energy of a cell, eV.

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
        entry = ComputedStructureEntry(structure, 0.0, parameters=parameters)
        return float(sum(adjustment.value for adjustment in scheme.get_adjustments(entry)))


def _hubbard_values(structure: Structure) -> dict[str, float]:
    """U of each element in eV, as Materials Project sets it by the most electronegative element."""
    elements = structure.composition.elements
    anion = sorted(elements, key=lambda element: element.X)[-1].symbol  # as pymatgen finds it, of noble gases too
    values: dict[str, float] = _scheme().u_settings.get(anion, {})
    return {element.symbol: values[element.symbol] for element in elements if element.symbol in values}


@cache
def _scheme() -> MaterialsProject2020Compatibility:
    """The scheme; it reads its tables once."""
    return MaterialsProject2020Compatibility(check_potcar=False)
