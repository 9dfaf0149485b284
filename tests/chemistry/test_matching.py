"""Uniqueness and novelty: the same verdicts as the plain loop, at the cost of one item per hang."""

from collections import defaultdict

import numpy as np
import pytest
from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure
from pymatgen.core.structure_matcher import StructureMatcher

from atomrl.matching import matcher as matching
from atomrl.matching.matcher import CrystalMatcher, Tolerances, reduced_formula
from atomrl.matching.task import Compare, fits, may_be_supercell, reduce, run_all
from atomrl.structures.cells import Crystal, to_arrays
from atomrl.workers.executor import TIMEOUT, Outcome

ELEMENTS = ("Na", "Cl", "O", "Ti")
MATCHER = StructureMatcher(ltol=0.2, stol=0.3, angle_tol=5)


def prototypes() -> list[Structure]:
    """Real structure types of two to twelve atoms."""
    found = [entry["snl"].structure for entry in AFLOW_PROTOTYPE_LIBRARY]
    return [structure for structure in found if structure.is_ordered and len(structure) <= 12]


def disguised(structure: Structure, draw: np.random.Generator) -> Structure:
    """The same crystal, a little strained and rattled, shifted, in another cell, atoms in another order."""
    moved = structure.copy()
    moved.apply_strain(draw.normal(0, 0.03, 3))
    moved.perturb(float(draw.uniform(0, 0.25)))
    moved.translate_sites(range(len(moved)), draw.random(3))
    if draw.random() < 0.3 and len(moved) <= 6:
        moved.make_supercell([[1, 1, 0], [0, 1, 0], [0, 0, 2]])
    order = draw.permutation(len(moved))
    return Structure(moved.lattice, [moved[i].species for i in order], moved.frac_coords[order])


@pytest.fixture(scope="module")
def crystals() -> tuple[list[Structure], list[Structure]]:
    """References and samples of few formulas, about half of them disguised references or earlier samples."""
    draw = np.random.default_rng(0)
    types = prototypes()

    def fresh() -> Structure:
        structure = types[draw.integers(len(types))].copy()
        symbols = sorted({element.symbol for element in structure.composition})
        if len(symbols) > len(ELEMENTS):
            return fresh()
        names = [str(name) for name in draw.permutation(ELEMENTS)[: len(symbols)]]
        structure.replace_species(dict(zip(symbols, names, strict=True)))
        return structure

    references = [fresh() for _ in range(180)]
    samples: list[Structure] = []
    for kind in draw.choice(["new", "reference", "sample"], 90, p=[0.4, 0.4, 0.2]):
        if kind == "new" or not samples:
            samples.append(fresh())
        else:
            pool = references if kind == "reference" else samples
            samples.append(disguised(pool[draw.integers(len(pool))], draw))
    return references, samples


def plain_loop(references: list[Structure], samples: list[Structure]) -> tuple[list[bool], list[bool], int]:
    """Uniqueness and novelty by `StructureMatcher.fit` alone, and the number of pairs."""
    unique, novel, pairs = [], [], 0
    known, seen = defaultdict(list), defaultdict(list)
    for reference in references:
        known[reference.composition.reduced_formula].append(reference)
    for sample in samples:
        formula = sample.composition.reduced_formula
        pairs += len(known[formula]) + len(seen[formula])
        novel.append(not any(MATCHER.fit(reference, sample) for reference in known[formula]))
        unique.append(not any(MATCHER.fit(earlier, sample) for earlier in seen[formula]))
        if unique[-1]:
            seen[formula].append(sample)
    return unique, novel, pairs


@pytest.mark.filterwarnings("ignore")
def test_verdicts_are_those_of_the_plain_loop(crystals: tuple[list[Structure], list[Structure]]) -> None:
    references, samples = crystals
    unique, novel, pairs = plain_loop(references, samples)
    assert pairs > 300
    assert 10 < sum(novel) < len(novel) - 10
    assert unique.count(False) > 10
    with CrystalMatcher([to_arrays(structure) for structure in references], workers=2) as matcher:
        found_unique, found_novel = matcher.match([to_arrays(structure) for structure in samples])
        assert found_unique.values.tolist() == unique
        assert found_novel.values.tolist() == novel
        assert set(found_unique.reasons) == set(found_novel.reasons) == {None}
        again = matcher.match([to_arrays(structure) for structure in samples])
        assert again[1].values.tolist() == novel


@pytest.mark.filterwarnings("ignore")
def test_groups_are_those_of_pymatgen(crystals: tuple[list[Structure], list[Structure]]) -> None:
    samples = crystals[1]
    groups = MATCHER.group_structures(samples)
    first = {min(next(i for i, s in enumerate(samples) if s is member) for member in group) for group in groups}
    with CrystalMatcher() as matcher:
        unique, novel = matcher.match([to_arrays(structure) for structure in samples])
    assert set(np.flatnonzero(unique.values).tolist()) == first
    assert novel.values.all()


@pytest.mark.filterwarnings("ignore")
def test_reduction_is_that_of_pymatgen(crystals: tuple[list[Structure], list[Structure]]) -> None:
    skipped = 0
    for structure in [*crystals[0], *crystals[1]]:
        expected = to_arrays(MATCHER._get_reduced_structure(structure))
        found = reduce(to_arrays(structure))
        skipped += not may_be_supercell(found)
        assert np.array_equal(found.numbers, expected.numbers)
        assert np.allclose(found.lattice, expected.lattice, atol=1e-10)
        difference = found.frac_coords - expected.frac_coords
        assert np.abs(difference - np.round(difference)).max() < 1e-10
    assert skipped > 200


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [0.0, 0.1, 0.24, 0.4])
def test_no_smaller_cell_is_overlooked(size: float) -> None:
    draw = np.random.default_rng(1)
    smaller = 0
    for structure in prototypes()[:60:5]:
        doubled = structure.copy()
        doubled.make_supercell([1, 1, 2])
        doubled.perturb(size) if size else None
        doubled.translate_sites(range(len(doubled)), draw.random(3))
        reduced = doubled.get_reduced_structure("niggli")
        found = len(reduced.get_primitive_structure()) < len(reduced)
        smaller += found
        assert may_be_supercell(to_arrays(reduced)) or not found
    assert smaller > 0 or size > 0.2


def test_a_pair_far_inside_and_far_outside_the_tolerances() -> None:
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    caesium_chloride = Structure(Lattice.cubic(3.5), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    bigger = salt.copy()
    bigger.scale_lattice(2 * salt.volume)
    first, second, third = (reduce(to_arrays(structure)) for structure in (salt, bigger, caesium_chloride))
    assert len(first.numbers) == 2
    assert fits(first, second, 0.2, 0.3, 5.0)  # volumes are made equal first
    assert not fits(first, third, 0.2, 0.3, 5.0)
    with CrystalMatcher([to_arrays(salt)], tolerances=Tolerances(stol=1e-4, ltol=0.01)) as matcher:
        strained = salt.copy()
        strained.apply_strain([0.05, 0, 0])
        unique, novel = matcher.match([to_arrays(strained), to_arrays(salt)])
    assert (unique.values.tolist(), novel.values.tolist()) == ([True, True], [True, False])


def test_a_hang_costs_one_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "TASK", "matching_tasks:misbehave_all")
    cubic = Lattice.cubic(4.0)

    def crystal(*symbols: str) -> Crystal:
        places = np.random.default_rng(len(symbols)).random((len(symbols), 3))
        return to_arrays(Structure(cubic, list(symbols), places))

    salt, caesium, lithium, seven = crystal("Na", "Cl"), crystal("Cs", "Cl"), crystal("Li"), crystal(*"OOOOOOO")
    with CrystalMatcher([lithium, seven], workers=2, timeout=2.0) as matcher:
        unique, novel = matcher.match([salt, salt, caesium, caesium, lithium, seven, crystal("O")])
    assert unique.values.tolist() == [True, False, False, False, True, False, True]
    assert unique.reasons == (None, None, TIMEOUT, TIMEOUT, None, "reduction", None)
    assert novel.values.tolist() == [True, True, True, True, False, False, False]
    assert novel.reasons == (None, None, None, None, TIMEOUT, "reduction", "reference_reduction")


class BusyAtFirst:
    """Workers in this process whose first lot has no time for references."""

    count = workers = 1

    def __init__(self) -> None:
        self.lots = 0

    def executor(self, task: str, timeout: float, settings: object = None) -> "BusyAtFirst":
        return self

    def map_lots(self, items: list[Crystal | Compare], size: int) -> list[Outcome]:
        self.lots += 1
        done = [Outcome(found, None) for found in run_all(items)]
        return done if self.lots > 1 else [done[0], *[Outcome(None, TIMEOUT)] * len(done[1:])]

    def close(self) -> None:
        """Nothing to give back."""


def test_a_reference_that_was_lost_is_tried_again() -> None:
    """A busy machine does not make all crystals of its formula known for the rest of a run."""
    sodium = to_arrays(Structure(Lattice.cubic(3.8), ["Na"], [[0, 0, 0]]))
    with CrystalMatcher([sodium], BusyAtFirst()) as matcher:
        verdicts = [matcher.match([sodium])[1] for _ in range(3)]
    assert [found.values.tolist() for found in verdicts] == [[False]] * 3
    assert [found.reasons for found in verdicts] == [("reference_timeout",), (None,), (None,)]


def test_of_a_lost_lot_only_the_culprit_stays_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "TASK", "matching_tasks:misbehave_all")
    salt, other = to_arrays(Structure(Lattice.cubic(3.5), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])), []
    for number in (55, 12):  # caesium hangs
        numbers = salt.numbers.copy()
        numbers[0] = number
        other.append(Crystal(numbers, salt.frac_coords, salt.lattice))
    crystals = [salt] * 7 + [other[0], other[1], other[0], other[1], salt]
    with CrystalMatcher(workers=1, timeout=2.0) as matcher:  # 12 items, three at a time: the third and fourth are lost
        unique, novel = matcher.match(crystals)
    assert unique.values.tolist() == [True] + 6 * [False] + [False, True, False, False, False]
    assert [row for row, reason in enumerate(unique.reasons) if reason == TIMEOUT] == [7, 9]
    assert novel.values.all()


def test_formulas() -> None:
    counts = {"H2O": ["H", "O", "H"], "NaCl": ["Na", "Cl"] * 4, "O": ["O"] * 3}
    found = {
        name: reduced_formula(to_arrays(Structure(Lattice.cubic(9), symbols, np.zeros((len(symbols), 3)))))
        for name, symbols in counts.items()
    }
    assert found == {"H2O": ((1, 2), (8, 1)), "NaCl": ((11, 1), (17, 1)), "O": ((8, 1),)}


def test_nothing_to_compare() -> None:
    with CrystalMatcher() as matcher:
        unique, novel = matcher.match([])
        assert unique.reasons == novel.reasons == ()
        assert matcher._executor.pids() == []


@pytest.mark.filterwarnings("ignore")
def test_a_reference_comes_first() -> None:
    """`fit(reference, generated)`: some pairs match in one order only, and the published order decides."""
    draw = np.random.default_rng(5)
    types = [structure for structure in prototypes() if len(structure) <= 6]
    turned = []
    for _ in range(1500):
        reference = types[draw.integers(len(types))]
        sample = disguised(reference, draw)
        sample.perturb(float(draw.uniform(0.2, 0.6)))
        if MATCHER.fit(reference, sample) != MATCHER.fit(sample, reference):
            turned.append((reference, sample))
        if len(turned) == 4:
            break
    assert turned
    for reference, sample in turned:
        with CrystalMatcher([to_arrays(reference)]) as matcher:
            _, novel = matcher.match([to_arrays(sample)])
        assert novel.values.tolist() == [not MATCHER.fit(reference, sample)]
