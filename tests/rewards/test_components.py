"""The built-in components, on metrics that are given."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pymatgen.core import Lattice, Structure

from atomrl.core.collective import Alone
from atomrl.core.records import RewardTable
from atomrl.core.stages import SampleContext
from atomrl.domains.crystals import count_msun
from atomrl.measures.measure import BatchMetrics, FeatureProvider, Metric, SoundSamples
from atomrl.rewards.components import (
    CompositionDiversityReward,
    CreativityReward,
    EnergyReward,
    PredictorReward,
    StructureDiversityReward,
)
from atomrl.rewards.metastability import MetastabilityReward
from atomrl.rewards.mmd import leave_one_out, subsample
from atomrl.util.errors import UserError

FORMULAS = [["Na", "Cl"], ["Cs", "Cl"], ["Cl", "Na"], ["Cs", "Cl"], ["Na", "Cl"]]
NO_NUMBERS = ["1.0", None, [1], True, math.nan, math.inf]


def known(values: list) -> Metric:
    return Metric(torch.tensor(values, dtype=torch.float64), (None,) * len(values))


def test_creativity() -> None:
    metrics = {
        "unique": known([1, 1, 0, 0, 1]),
        "novel": known([1, 0, 1, 0, 0]),
        "amd_distance": known([9.0, 0.25, 0.5, 9.0, math.inf]),
    }
    assert CreativityReward().compute([], metrics_obj=metrics).tolist() == [1, 0.25, 0.5, 0, 0]
    assert CreativityReward(max_distance=0.3).compute([], metrics_obj=metrics).tolist() == [1, 0.25, 0.3, 0, 0]
    with pytest.raises(UserError, match="max_distance must be positive"):
        CreativityReward(max_distance=0.0)
    assert CreativityReward.failed_value == 0


def test_distances_are_not_asked_for_without_need() -> None:
    metrics = {"unique": known([1, 0]), "novel": known([1, 0])}
    assert CreativityReward().compute([], metrics_obj=metrics).tolist() == [1, 0]


def test_energy_is_bounded_and_failures_count_as_one() -> None:
    metrics = {"e_above_hull": known([-0.2, 0.3, 7.0, math.nan])}
    assert EnergyReward().compute([], metrics_obj=metrics).tolist() == pytest.approx([0, -0.3, -1, -1])
    assert EnergyReward.failed_value == -1


def test_the_energy_of_a_second_one_of_a_kind_may_count_for_nothing() -> None:
    metrics = {
        "e_above_hull": known([0.0, 0.1, 0.2, math.nan]),
        "unique": known([1, 0, 1, 1]),
        "novel": known([1, 1, 0, 1]),
    }
    assert EnergyReward(only=["unique"]).compute([], metrics_obj=metrics).tolist() == pytest.approx([0, -1, -0.2, -1])
    both = EnergyReward(only=["unique", "novel"])
    assert both.compute([], metrics_obj=metrics).tolist() == pytest.approx([0, -1, -1, -1])
    assert both.metrics == ("e_above_hull", "unique", "novel")
    assert both.compares
    assert not EnergyReward(only=["novel"]).compares
    for wrong in ("unique", ["stable"]):
        with pytest.raises(UserError, match="must be a list of unique and novel"):
            EnergyReward(only=wrong)


def test_metastability_is_a_product() -> None:
    metrics = {
        "unique": known([1, 1, 0, 1, 1]),
        "novel": known([1, 1, 1, 0, 1]),
        "e_above_hull": known([-0.1, 0.2, 0.0, 0.0, math.nan]),
    }
    crystals = [Structure(Lattice.cubic(4), formula, [[0, 0, 0], [0.5, 0.5, 0.5]]) for formula in FORMULAS]
    component = MetastabilityReward(scale=0.2)
    assert component.name == "metastability"
    assert component.compute(crystals, metrics_obj=metrics).tolist() == pytest.approx([1, math.exp(-1), 0, 0, 0])
    crowded = MetastabilityReward(scale=0.2, crowding=2.0)  # three of NaCl, in whatever order, two of CsCl
    assert crowded.compute(crystals, metrics_obj=metrics).tolist() == pytest.approx([1 / 9, math.exp(-1) / 4, 0, 0, 0])
    assert MetastabilityReward.failed_value == 0
    with pytest.raises(UserError, match="crowding must be 0 or more, got -1"):
        MetastabilityReward(crowding=-1.0)
    with pytest.raises(UserError, match="scale must be above 0 eV/atom, got 0"):
        MetastabilityReward(scale=0.0)


def test_the_log_counts_msun_as_an_evaluation_does() -> None:
    numbers = {
        "e_above_hull": [0.1, 0.11, 0.0, 0.0, 0.0, math.nan],
        "unique": [1, 1, 0, 1, 1, math.nan],
        "novel": [1, 1, 1, 0, 1, math.nan],
        "hull_holds_compound": [1, 1, 1, 1, 0, math.nan],
    }
    diagnostics = {name: torch.tensor(values, dtype=torch.float64) for name, values in numbers.items()}
    table = RewardTable({}, (None,) * 6, diagnostics=diagnostics)
    nothing = SampleContext(None, None, None, Alone())
    assert count_msun(table, nothing).diagnostics["msun"].tolist() == [1, 0, 0, 0, 0, 0]
    del diagnostics["novel"]
    assert count_msun(table, nothing) is table


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [-1.0, 2.0, 5.0]),
        ({"clip_min": 0.0, "clip_max": 4.0}, [0.0, 2.0, 4.0]),
        ({"target_value": 3.0, "clip_min": 0.0}, [-9.0, -1.0, -4.0]),
    ],
)
@pytest.mark.parametrize("kind", [torch.tensor, np.array, list])
def test_predictor(options: dict, expected: list, kind: Callable[[list], Any]) -> None:
    predictor = SimpleNamespace(predict=lambda batch: {"gap": kind(batch)})
    component = PredictorReward(predictor, "gap", **options)
    assert component.name == "gap"
    assert component.compute([], batch_gen=[-1.0, 2.0, 5.0]).tolist() == expected


def test_predictor_without_the_target() -> None:
    predictor = SimpleNamespace(predict=lambda batch: {"gap": torch.tensor(batch)})
    with pytest.raises(UserError, match="'bulk_modulus'; its predictor knows gap"):
        PredictorReward(predictor, "bulk_modulus").compute([], batch_gen=[1.0])
    with pytest.raises(UserError, match="clip_min"):
        PredictorReward(predictor, "gap", clip_min=1.0, clip_max=0.0)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        *((EnergyReward, {"weight": value}, "weight of EnergyReward must be a finite number") for value in NO_NUMBERS),
        *((EnergyReward, {"eps": value}, "eps of a normalisation must be a finite number") for value in NO_NUMBERS),
        (EnergyReward, {"clip_range": ["a", "b"]}, "each end of clip_range must be a finite number, got 'a'"),
        (EnergyReward, {"clip_range": [0, math.inf]}, "each end of clip_range must be a finite number, got inf"),
        (EnergyReward, {"clip_range": 3}, "clip_range is a lower and a higher bound, got 3"),
        (EnergyReward, {"clip_range": "ab"}, "clip_range is a lower and a higher bound, got 'ab'"),
        (CreativityReward, {"max_distance": "far"}, "max_distance must be positive, got 'far'"),
        (StructureDiversityReward, {"max_references": "a"}, "max_references of StructureDiversityReward"),
        (StructureDiversityReward, {"max_references": -1}, "whole number from 1, got -1"),
        (CompositionDiversityReward, {"max_references": 0}, "whole number from 1, got 0"),
        (CompositionDiversityReward, {"seed": 1.5}, "seed of CompositionDiversityReward"),
        (PredictorReward, {"predictor": 3, "target_name": "gap"}, "a folder or an object with predict: 3"),
        (PredictorReward, {"predictor": SimpleNamespace, "target_name": "gap"}, "object with predict"),
        (PredictorReward, {"predictor": 3, "target_name": "gap", "target_value": "high"}, "target_value of Predictor"),
    ],
)
def test_options_are_checked_when_a_component_is_made(kind: type, options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        kind(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("component", "name"),
    [(StructureDiversityReward, "structure_features"), (CompositionDiversityReward, "composition_features")],
)
def test_diversity_leaves_out_samples_without_features(component: type, name: str) -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(6, 3, generator=draw, dtype=torch.float64)
    reference = torch.randn(50, 3, generator=draw, dtype=torch.float64)
    gap = features.clone()
    gap[2] = math.nan
    metrics = {name: Metric(gap, (None, None, "nonfinite", None, None, None), reference)}
    scores = component(max_references=20, seed=3).compute([], metrics_obj=metrics)
    rest = [0, 1, 3, 4, 5]
    assert torch.equal(scores.values[rest], leave_one_out(features[rest], subsample(reference, 20, 3)))
    assert math.isnan(scores.values[2])
    assert scores.reasons[2] == "nonfinite"


def test_diversity_of_two_samples_is_unknown_with_a_reason() -> None:
    metrics = {"structure_features": Metric(torch.zeros(2, 3), (None, None), torch.zeros(5, 3))}
    scores = StructureDiversityReward().compute([], metrics_obj=metrics)
    assert scores.values.isnan().all()
    assert set(scores.reasons) == {"too_few_samples"}
    metrics = {"structure_features": Metric(torch.zeros(2, 3), (None, None))}
    with pytest.raises(UserError, match="reference set"):
        StructureDiversityReward().compute([], metrics_obj=metrics)


def test_features_by_an_encoder() -> None:
    values = torch.tensor([[1.0, 2.0], [math.inf, 0.0]])
    provider = FeatureProvider(lambda batch: {"structure_features": values}, {"structure_features": torch.ones(4, 2)})
    batch = SoundSamples(tensors=[None, None], crystals=[None, None])
    metric = BatchMetrics(batch, dict.fromkeys(provider.names, provider))["structure_features"]
    assert metric.reasons == (None, "nonfinite")
    assert metric.values[0].tolist() == [1, 2]
    assert metric.values[1].isnan().all()
    assert metric.reference.shape == (4, 2)


@pytest.mark.parametrize(
    ("metric", "words"),
    [(known([1.0]), "1 values for 2 samples"), (known([1.0, math.nan]), "row 1 without a reason")],
)
def test_a_provider_that_breaks_its_promises(metric: Metric, words: str) -> None:
    provider = SimpleNamespace(measure=lambda batch: {"novel": metric})
    with pytest.raises(UserError, match=words):
        BatchMetrics(SoundSamples(None, [None, None]), {"novel": provider})["novel"]
    with pytest.raises(UserError, match=r"metric unique \(there are: novel\): add it to required_metrics"):
        BatchMetrics(SoundSamples(None, [None, None]), {"novel": provider})["unique"]
