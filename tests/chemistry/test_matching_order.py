"""`StructureMatcher.fit` is not symmetric: who comes first when a crystal is compared with references or samples."""

import numpy as np
import pytest
import torch
from pymatgen.core.structure import Structure
from pymatgen.core.structure_matcher import StructureMatcher

from atomrl.data.prototype_set import load_prototypes
from atomrl.matching.matcher import CrystalMatcher
from atomrl.matching.task import reduce
from atomrl.structures.cells import Crystal
from atomrl.structures.crystals import to_crystals

MATCHER = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)

ONE_ORDER_ONLY = {12: 4, 108: 36, 195: 65, 267: 89, 423: 141, 567: 189, 1038: 346, 2841: 947, 3540: 1180, 4338: 1446}
"""Rows of the shipped set: seed of a strain; most of these pairs match in one order only."""


def shipped(rows: list[int]) -> list[Crystal]:
    """Crystals of the shipped set."""
    return to_crystals(load_prototypes().structures(torch.tensor(rows)))


def strained(crystal: Crystal, seed: int) -> Crystal:
    """A copy under a large strain, its atoms moved a little."""
    draw = np.random.default_rng(seed)
    strain = np.eye(3) + draw.normal(0, 0.12, (3, 3))
    frac_coords = crystal.frac_coords + draw.normal(0, 0.03, crystal.frac_coords.shape)
    return Crystal(crystal.numbers, frac_coords % 1, crystal.lattice @ strain)


def structure(crystal: Crystal) -> Structure:
    return Structure(crystal.lattice, crystal.numbers.tolist(), crystal.frac_coords)


def fit(first: Crystal, second: Crystal) -> bool:
    """The plain call."""
    return bool(MATCHER.fit(structure(first), structure(second)))


@pytest.fixture(scope="module")
def pinned() -> tuple[list[Crystal], list[Crystal]]:
    """References and strained copies, row by row; pairs that match in one order only, either way around, among them."""
    references = shipped(list(ONE_ORDER_ONLY))
    samples = [strained(*pair) for pair in zip(references, ONE_ORDER_ONLY.values(), strict=True)]
    forward = [fit(*pair) for pair in zip(references, samples, strict=True)]
    backward = [fit(*pair) for pair in zip(samples, references, strict=True)]
    kinds = list(zip(forward, backward, strict=True))
    assert kinds.count((True, False)) == 2
    assert kinds.count((False, True)) == 6
    return references, samples


def test_a_reference_comes_before_the_sample(pinned: tuple[list[Crystal], list[Crystal]]) -> None:
    references, samples = pinned
    expected = [not fit(*pair) for pair in zip(references, samples, strict=True)]
    with CrystalMatcher(references) as matcher:
        assert matcher.match(samples)[1].values.tolist() == expected
        assert matcher.match(samples)[1].values.tolist() == expected  # of references that are kept
    with CrystalMatcher([reduce(crystal) for crystal in references]) as matcher:
        assert matcher.match([reduce(crystal) for crystal in samples])[1].values.tolist() == expected


def test_an_earlier_sample_comes_before_a_later_one(pinned: tuple[list[Crystal], list[Crystal]]) -> None:
    for batch in ([*pinned[0], *pinned[1]], [*pinned[1], *pinned[0]]):
        plain = [structure(crystal) for crystal in batch]
        first = {id(group[0]) for group in MATCHER.group_structures(plain)}
        with CrystalMatcher() as matcher:
            unique = matcher.match(batch)[0].values.tolist()
        assert unique == [id(one) in first for one in plain]


def test_novelty_of_many_strained_crystals() -> None:
    rows = list(range(0, 4376, 20))
    references = shipped(rows)
    samples = [strained(crystal, 2 * row) for row, crystal in zip(rows, references, strict=True)]
    known: dict[str, list[Crystal]] = {}
    for reference in references:
        known.setdefault(structure(reference).reduced_formula, []).append(reference)
    expected = []
    for sample in samples:
        same = known[structure(sample).reduced_formula]
        expected.append(not any(fit(reference, sample) for reference in same))
    turned = [fit(sample, reference) for sample, reference in zip(samples, references, strict=True)]
    assert sum(first == second for first, second in zip(expected, turned, strict=True)) > 5  # the orders differ
    with CrystalMatcher(references) as matcher:
        assert matcher.match(samples)[1].values.tolist() == expected
