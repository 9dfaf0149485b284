"""The ordered list of candidates: references, textbook compounds, then substituted prototypes in turns.

Every beginning of the list is a diverse set: prototypes take turns, and each takes its most plausible substitution
after a discount for the elements and the chemical system that the list already holds.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray
from pymatgen.core import Composition

from tools.prototypes.candidate import IONIC, Candidate
from tools.prototypes.library import prototype_structures
from tools.prototypes.references import ELEMENTS, reference_candidates, textbook_candidates
from tools.prototypes.substitutions import MOLECULAR, substitutions

POLYMORPHS = 5
"""Prototypes per formula, at most."""

NOISE = 0.7
"""Scale of the Gumbel noise on the log-plausibilities, so that a seed draws a set rather than the top of the table."""

ELEMENT_DISCOUNT, SYSTEM_DISCOUNT = 1.0, 0.8
"""Weights of log(1 + how often the list holds it): mean over the elements, chemical system."""

TURNS_IONIC = {2: 1.0, 3: 2.0, 4: 2.0}
"""Candidates per round of an ionic prototype by its number of elements; the library has few of three and four."""

TURNS_SIMILAR, TURNS_UNARY = 0.35, 0.1
"""The same where elements are replaced by similar ones: mostly intermetallics, which are to be a modest share."""

FREQUENT = frozenset(
    (
        "AB_cF8_225_a_b:NaCl",
        "AB_cP2_221_b_a:CsCl",
        "AB_cF8_216_c_a:ZnS",
        "AB_hP4_186_b_b:ZnS",
        "A2B_tP6_136_f_a:TiO2",
        "AB2_cF12_225_a_c:CaF2",
        "AB3C_cP5_221_a_c_b:CaTiO3",
        "AB3C_oP20_62_c_cd_a:CaTiO3",
        "A2B3_hR10_167_c_e:Al2O3",
        "A2BC4_cF56_227_d_a_e:MgAl2O4",
        "ABC2_hR4_166_a_b_c:NaCrS2",
        "AB2_hP3_164_a_d:CdI2",
        "ABC_tP6_129_c_a_c:PbClF",
        "ABC_cF12_216_b_c_a:MgAgAs",
        "AB2C_cF16_225_a_c_b:MnAlCu2",
        "AB3_cP4_221_a_c:Cu3Au",
        "AB_hP4_194_c_a:NiAs",
        "A2B_oP12_62_2c_c:PbCl2",
        "ABC2_tI16_122_a_b_d:FeCuS2",
        "AB2C4_tI14_139_a_e_ce:La2CuO4",
        "AB3C_hR10_148_c_f_c:TiFeO3",
        "AB2C_oC16_63_c_2c_c:SrCuO2",
        "A3B_cP4_221_d_a:ReO3",
        "AB3_hR8_148_c_f:BiI3",
        "A4BC_tI24_141_h_b_a:ZrSiO4",
    )
)
"""Structure types that hold most of the known inorganic compounds; they take two turns where others take one."""


def candidates(seed: int = 0, limit: int = 12_000) -> list[Candidate]:
    """The first `limit` candidates, no two alike; a pure function of the seed and the libraries' versions."""
    found = list(dict.fromkeys(reference_candidates() + textbook_candidates()))
    textbook = {(candidate.prototype, candidate.elements) for candidate in found}
    tally = _Tally()
    for candidate in found:
        tally.add([new for _, new in candidate.elements])
    prototypes = [
        _Prototype(label, seed, number) for number, label in enumerate(prototype_structures()) if label not in MOLECULAR
    ]
    formulas: Counter[str] = Counter()
    while len(found) < limit:
        prototypes = [prototype for prototype in prototypes if prototype.left]
        if not prototypes:
            break
        for prototype in prototypes:
            for candidate in prototype.take_turns(tally):
                formula = formula_of(candidate)
                if formulas[formula] >= POLYMORPHS or (candidate.prototype, candidate.elements) in textbook:
                    continue
                formulas[formula] += 1
                tally.add([new for _, new in candidate.elements])
                found.append(candidate)
    return found[:limit]


def formula_of(candidate: Candidate) -> str:
    """Reduced formula of a substituted prototype of the library."""
    composition = prototype_structures()[candidate.prototype].composition
    elements = dict(candidate.elements)
    substituted = Composition({elements[str(old)]: count for old, count in composition.items()})
    return str(substituted.reduced_formula)


class _Tally:
    """How often the list holds each element and chemical system.

    Attributes:
        elements: by number in `ELEMENTS`.
        systems: by bit mask of its elements.
    """

    def __init__(self) -> None:
        self.elements = np.zeros(len(ELEMENTS))
        self.systems: Counter[int] = Counter()

    def add(self, elements: list[str]) -> None:
        numbers = [ELEMENTS.index(element) for element in elements]
        self.elements[numbers] += 1
        self.systems[sum(1 << number for number in numbers)] += 1


class _Prototype:
    """A prototype and the substitutions that it may still propose, most plausible first, with noise.

    Attributes:
        label: of the prototype.
        kind: `ionic` or `similar`.
        left: how many substitutions are left.
    """

    def __init__(self, label: str, seed: int, number: int) -> None:
        self.label = label
        self.kind, choices = substitutions(label)
        noise = np.random.default_rng([seed, number]).gumbel(scale=NOISE, size=len(choices))
        self._substitutions = [new for _, new in choices]
        self._values: NDArray[np.float64] = np.array([score for score, _ in choices]) + noise
        self._numbers = np.array([[ELEMENTS.index(new) for new in choice.values()] for choice in self._substitutions])
        self._systems = [sum(1 << number for number in row) for row in self._numbers.tolist()]
        self._turns, self._credit = _turns(label, self.kind), 0.0
        self.left = len(choices)

    def take_turns(self, tally: _Tally) -> list[Candidate]:
        """The candidates of one round."""
        self._credit += self._turns
        taken = []
        while self._credit >= 1 and self.left:
            self._credit -= 1
            self.left -= 1
            often = np.log1p(tally.elements)[self._numbers].mean(axis=1)
            system = np.log1p([tally.systems[system] for system in self._systems])
            best = int(np.argmax(self._values - ELEMENT_DISCOUNT * often - SYSTEM_DISCOUNT * system))
            self._values[best] = -np.inf
            taken.append(Candidate.make(self.kind, self.label, self._substitutions[best]))
        return taken


def _turns(label: str, kind: str) -> float:
    """Candidates per round; cells of more than 8 atoms, which take long, get fewer."""
    structure = prototype_structures()[label]
    count = len(structure.composition)
    similar = TURNS_UNARY if count == 1 else TURNS_SIMILAR
    turns = TURNS_IONIC[count] if kind == IONIC else similar
    return turns * float(min(1.0, (8 / len(structure)) ** 0.5)) * (2 if label in FREQUENT else 1)
