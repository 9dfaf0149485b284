"""Crystals judged: hand-made verdicts for the sums, real judges for the way there."""

import math
from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch
from crystal_samples import CAESIUM_CHLORIDE, PEROVSKITE, ROCK_SALT, SILICON, rattled
from pymatgen.core import Composition, Lattice, Structure

from atomrl.chemistry.hull import Hull, HullEntry, HullKey
from atomrl.core.records import Structures
from atomrl.evaluation.crystals import METRICS, evaluate_crystals
from atomrl.export.crystals import AnnotatedCrystals, write_cif, write_extxyz
from atomrl.force_fields.chgnet import CHGNetForceField
from atomrl.matching.matcher import CrystalMatcher
from atomrl.measures.crystal_verdicts import PHYSICS, CrystalVerdicts, judge_crystals, structure_valid
from atomrl.measures.matching import MatchingProvider
from atomrl.measures.measure import FeatureProvider, Metric, SoundSamples
from atomrl.measures.physics import HullProvider
from atomrl.structures.cells import to_arrays
from atomrl.structures.crystals import from_pymatgen
from atomrl.util.errors import UserError

INF = math.inf


def verdicts(unique, novel, above, compound):
    count = len(unique)
    return CrystalVerdicts(
        formulas=("NaCl",) * count,
        sizes=np.full(count, 2),
        elements={11: count, 17: count},
        structure_valid=np.ones(count, dtype=bool),
        composition_valid=np.ones(count, dtype=bool),
        unique=np.array(unique, dtype=bool),
        novel=np.array(novel, dtype=bool),
        e_above_hull=np.array(above),
        energies_per_atom=np.zeros(count),
        hull_holds_compound=np.array(compound, dtype=bool),
        features={},
        reasons={"geometry": (None,) * count, "e_above_hull": (None,) * count},
    )


def summary_of(table, **options):
    return evaluate_crystals(table, evaluator="fake", novelty_set="none", resamples=200, **options).summary


def test_sun_and_msun_by_hand():
    table = verdicts(
        unique=[1, 1, 1, 0, 1, 1, 1, 1],
        novel=[1, 1, 0, 1, 1, 1, 1, 1],
        above=[-0.2, 0.1, -0.1, 0.0, 0.11, -0.3, 0.05, INF],
        compound=[1, 1, 1, 1, 1, 0, 0, 1],
    )
    summary = summary_of(table)
    expected = {
        "sun": 1,
        "msun": 2,
        "sun_no_compound": 1,
        "msun_no_compound": 2,
        "stable": 4,
        "metastable": 6,
        "unique": 7,
        "novel": 7,
        "evaluation_failures": 1,
    }
    for name, count in expected.items():
        assert summary[name].value == pytest.approx(count / 8), name
        assert summary[name].denominator == 8, name
        assert summary[name].low <= summary[name].value <= summary[name].high
    assert summary["e_above_hull_median"].value == 0.0
    assert summary["e_above_hull_mean"].value == pytest.approx(np.mean([-0.2, 0.1, -0.1, 0.0, 0.11, -0.3, 0.05]))
    assert summary["e_above_hull_mean"].denominator == 7
    assert list(summary) == [name for name in METRICS if name in summary]


def test_failures_pull_the_median_to_infinity():
    assert (
        summary_of(verdicts([1] * 5, [1] * 5, [0.1, 0.2, INF, INF, INF], [1] * 5))["e_above_hull_median"].value == INF
    )


def test_rounding_does_not_make_a_known_phase_unstable():
    flags = verdicts([1] * 3, [1] * 3, [1e-6, 0.1 + 1e-6, 0.001], [1] * 3).flags
    assert flags["stable"].tolist() == [True, False, False]
    assert flags["metastable"].tolist() == [True, True, True]


def with_distance(distance):
    """Two hydrogen atoms in a wide cell."""
    return Structure(Lattice.cubic(8.0), ["H", "H"], [[0, 0, 0], [distance, 0, 0]], coords_are_cartesian=True)


def test_structural_validity():
    structures = from_pymatgen([with_distance(0.51), with_distance(0.49), with_distance(7.6), ROCK_SALT, ROCK_SALT])
    cell = structures.cell.clone()
    cell[3, 2] = cell[3, 0] + cell[3, 1]  # flat
    cell[4] = torch.nan
    broken = Structures(structures.numbers, structures.positions, structures.mask, cell)
    assert structure_valid(broken).tolist() == [True, False, False, False, False]
    assert structure_valid(structures).tolist() == [True, False, False, True, True]
    # close packing with distances of 0.51 and 0.53 Å has volumes of 0.094 and 0.105 Å³
    packed = [Structure(Lattice.from_parameters(a, a, a, 60, 60, 60), ["H"], [[0, 0, 0]]) for a in (0.51, 0.53)]
    assert structure_valid(from_pymatgen(packed)).tolist() == [False, True]


class ByHand:
    """Metrics by the number of atoms; remembers what it saw."""

    def __init__(self, **functions):
        self.names, self.functions, self.seen = tuple(functions), functions, []

    def measure(self, batch: SoundSamples):
        self.seen.append(len(batch))
        columns = {name: torch.tensor([f(len(c)) for c in batch.crystals]) for name, f in self.functions.items()}
        return {
            name: Metric(values, tuple("scf" if math.isnan(value) else None for value in values.tolist()))
            for name, values in columns.items()
        }

    def close(self):
        """Nothing."""


def providers(**changed):
    reference = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    features = FeatureProvider(
        lambda structures: {"structure_features": torch.stack([structures.sizes.double()] * 2, 1)},
        {"structure_features": reference},
    )
    physics = {
        "e_above_hull": lambda atoms: math.nan if atoms == 5 else 0.01 * atoms,
        "energy_per_atom": lambda atoms: -1.0,
        "hull_holds_compound": lambda atoms: 1.0,
    }
    matching = {"unique": lambda atoms: 1.0, "novel": lambda atoms: float(atoms != 8)}
    return [ByHand(**matching), ByHand(**(physics | changed)), features]


@pytest.fixture
def samples():
    """Salts, a perovskite and silicon, and three broken cells: overlap, NaN, no volume."""
    crystals = [ROCK_SALT, CAESIUM_CHLORIDE, PEROVSKITE, SILICON, with_distance(0.3), ROCK_SALT, ROCK_SALT]
    structures = from_pymatgen(crystals)
    cell = structures.cell.clone()
    cell[5, 0, 0] = torch.nan
    cell[6] = 0.0
    return Structures(structures.numbers, structures.positions, structures.mask, cell)


def test_all_samples_are_judged(samples):
    asked = providers()
    judged = judge_crystals(samples, asked)
    assert asked[0].seen == [4]
    assert judged.reasons["geometry"] == (None,) * 4 + ("overlap", "nan", "length")
    assert judged.unique.tolist() == [True] * 4 + [False] * 3
    assert judged.novel.tolist() == [False] + [True] * 3 + [False] * 3
    np.testing.assert_allclose(judged.e_above_hull, [0.08, 0.02, INF, 0.02, INF, INF, INF])
    assert judged.reasons["e_above_hull"] == (None, None, "scf", None, None, None, None)
    assert judged.composition_valid.tolist() == [True] * 7
    assert judged.structure_valid.tolist() == [True] * 4 + [False] * 3
    metrics = evaluate_crystals(judged, evaluator="fake", novelty_set="none", resamples=100)
    assert metrics.summary["msun"].value == pytest.approx(2 / 7)
    assert metrics.summary["structure_validity"].value == pytest.approx(4 / 7)
    assert metrics.summary["structure_diversity"].denominator == 4
    assert "composition_diversity" not in metrics.summary
    assert metrics.failures["geometry"] == {"overlap": 1, "nan": 1, "length": 1}
    assert metrics.failures["e_above_hull"] == {"scf": 1}
    assert metrics.sizes == {2: 3, 5: 1, 8: 3}
    assert metrics.elements["H"] == 2
    assert "icsd24" in metrics.conditions["composition_validity"]
    assert "SMACT 4" in metrics.conditions["composition_validity"]


def test_mixed_valence_has_a_row_and_a_column_of_its_own():
    magnetite = Structure(Lattice.cubic(6.0), ["Fe"] * 3 + ["O"] * 4, np.linspace(0, 1, 7, False)[:, None] * [1, 1, 1])
    structures = from_pymatgen([magnetite, ROCK_SALT])
    plain, asked = (judge_crystals(structures, providers(), mixed_valence=option) for option in (False, True))
    assert plain.composition_valid.tolist() == asked.composition_valid.tolist() == [False, True]
    assert asked.composition_valid_mixed_valence.tolist() == [True, True]
    assert [row["composition_valid_mixed_valence"] for row in asked.rows()] == [True, True]
    assert "composition_valid_mixed_valence" not in plain.rows()[0]
    cards = [evaluate_crystals(each, evaluator="fake", novelty_set="none", resamples=100) for each in (plain, asked)]
    assert cards[1].summary["composition_validity"].value == 0.5
    assert cards[1].summary["composition_validity_mixed_valence"].value == 1.0
    assert "a state of its own" in cards[1].conditions["composition_validity_mixed_valence"]
    assert "composition_validity_mixed_valence" not in {**cards[0].summary, **cards[0].conditions}


def test_components_of_ones_own_have_rows(samples):
    """A mean of those that have a value, below the profile's rows, and in the files of the samples."""
    gaps = np.array([1.0, 2.0, np.nan, 6.0, np.nan, np.nan, np.nan])
    judged = replace(judge_crystals(samples, providers()), components={"band_gap": gaps})
    metrics = evaluate_crystals(judged, evaluator="fake", novelty_set="none", resamples=100)
    assert list(metrics.definitions) == [*METRICS, "reward_band_gap"]
    assert list(metrics.summary)[-1] == "reward_band_gap"
    assert metrics.summary["reward_band_gap"].value == pytest.approx(3.0)
    assert metrics.summary["reward_band_gap"].denominator == 3
    rows = judged.rows()
    assert rows[3]["reward_band_gap"] == 6.0
    assert "reward_band_gap" not in rows[2]


def test_rows_leave_out_what_is_unknown(samples):
    rows = judge_crystals(samples, providers()).rows()
    assert rows[1]["formula"] == "CsCl"
    assert rows[1]["msun"] is True
    assert rows[1]["e_above_hull"] == pytest.approx(0.02)
    assert "e_above_hull" not in rows[2]
    assert rows[2]["e_above_hull_reason"] == "scf"
    assert rows[4]["geometry_reason"] == "overlap"
    assert "geometry_reason" not in rows[0]


def test_without_physics(samples):
    judged = judge_crystals(samples, providers()[:1])
    metrics = evaluate_crystals(judged, evaluator="fake", novelty_set="none", resamples=100)
    assert metrics.evaluator == "skipped"
    assert set(metrics.summary) == {"unique", "novel", "composition_validity", "structure_validity"}


def test_nothing_sound(samples):
    judged = judge_crystals(samples[4:], providers())
    metrics = evaluate_crystals(judged, evaluator="fake", novelty_set="none", resamples=100)
    assert metrics.summary["msun"].value == 0
    assert metrics.summary["e_above_hull_median"].value == INF
    assert math.isnan(metrics.summary["e_above_hull_mean"].value)


def test_what_cannot_be_judged(samples):
    with pytest.raises(UserError, match="0 crystals"):
        judge_crystals(samples[:0], providers())
    with pytest.raises(UserError, match="hull_holds_compound missing"):
        judge_crystals(samples, [providers()[0], ByHand(e_above_hull=lambda _: 0.0, energy_per_atom=lambda _: 0.0)])


def test_noble_gases_do_not_warn():
    argon = CAESIUM_CHLORIDE.copy()
    argon.replace(0, "Ar")
    judged = judge_crystals(from_pymatgen([argon]), providers()[:1])
    assert judged.formulas == ("ClAr",)
    assert not judged.composition_valid[0]


def test_real_judges_end_to_end(tmp_path):
    force_field = CHGNetForceField(device="cpu")
    key = HullKey(force_field.model_id, force_field.correction, "by hand")
    phases = [("Na", -1.31), ("Cl", -1.84), ("NaCl", -3.67), ("Cs", -0.86), ("Si", -5.42)]
    hull = Hull(key, [HullEntry(Composition(formula), energy, formula) for formula, energy in phases])
    physics = HullProvider(force_field, hull)
    assert set(PHYSICS) <= set(physics.names)
    structures = from_pymatgen([ROCK_SALT, rattled(ROCK_SALT), CAESIUM_CHLORIDE, SILICON, with_distance(0.3)])
    with CrystalMatcher([to_arrays(SILICON)]) as matcher:
        judged = judge_crystals(structures, [MatchingProvider(matcher), physics])
    assert judged.unique.tolist() == [True, False, True, True, False]
    assert judged.novel.tolist() == [True, True, True, False, False]
    # CsCl has no compound in this hull; silicon is known
    assert judged.flags["msun"].tolist() == [True, False, False, False, False]
    assert judged.flags["msun_no_compound"].tolist() == [False, False, True, False, False]
    metrics = evaluate_crystals(judged, evaluator=physics.description, novelty_set="silicon", resamples=100)
    assert force_field.model_id in metrics.evaluator
    ids = [f"{row:05d}" for row in range(5)]
    annotated = AnnotatedCrystals(structures, ids, judged.rows())
    assert write_cif(tmp_path / "samples.cif", annotated) == 5
    write_extxyz(tmp_path / "samples.extxyz", annotated)
    read = ase.io.read(tmp_path / "samples.extxyz", index=":")
    assert read[4].info["geometry_reason"] == "overlap"
    assert read[0].info["e_above_hull"] == pytest.approx(judged.e_above_hull[0], abs=1e-6)


def test_strange_numbers_are_counted_as_they_are():
    good = from_pymatgen([rattled(CAESIUM_CHLORIDE)])
    numbers = good.numbers.clone()
    numbers[0, 0] = 130
    judged = judge_crystals(Structures(numbers, good.positions, good.mask, good.cell), providers())
    assert judged.reasons["geometry"] == ("element",)
    assert not judged.composition_valid[0]
    assert not judged.structure_valid[0]
    metrics = evaluate_crystals(judged, evaluator="fake", novelty_set="none", resamples=100)
    assert metrics.elements == {"Cl": 1, "Z=130": 1}
