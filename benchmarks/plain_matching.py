"""Uniqueness and novelty as a plain loop: `StructureMatcher.fit` over the pairs of equal reduced formula.

What `atomrl.matching.matcher` is measured against, with the same verdicts.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pymatgen.core import Structure
from pymatgen.core.structure_matcher import StructureMatcher

from atomrl.matching.matcher import Tolerances


@dataclass(frozen=True)
class PlainVerdicts:
    """Of B crystals.

    Attributes:
        unique: the first of its group of matching samples, B entries.
        novel: matches no reference, B entries.
        pairs: how many were compared.
    """

    unique: list[bool]
    novel: list[bool]
    pairs: int


def match(references: Sequence[Structure], samples: Sequence[Structure]) -> PlainVerdicts:
    """Each sample against the references, and the unique samples before it, of its formula, until one fits."""
    tolerances = Tolerances()
    matcher = StructureMatcher(tolerances.ltol, tolerances.stol, tolerances.angle_tol)
    known: defaultdict[str, list[Structure]] = defaultdict(list)
    kept: defaultdict[str, list[Structure]] = defaultdict(list)
    unique, novel, pairs = [], [], 0

    def fits_any(sample: Structure, others: Sequence[Structure]) -> bool:
        nonlocal pairs
        for other in others:
            pairs += 1
            if matcher.fit(other, sample):
                return True
        return False

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of noble gases in a formula
        for reference in references:
            known[reference.composition.reduced_formula].append(reference)
        for sample in samples:
            formula = sample.composition.reduced_formula
            novel.append(not fits_any(sample, known[formula]))
            unique.append(not fits_any(sample, kept[formula]))
            if unique[-1]:
                kept[formula].append(sample)
    return PlainVerdicts(unique, novel, pairs)
