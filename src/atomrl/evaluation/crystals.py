"""What generated crystals are judged by: profile `mp20-2025`.

Unique, novel, stable (0 eV/atom above the hull or less), metastable (0.1 or less), and their products SUN and mSUN, as
in Zeni et al. 2025 (doi 10.1038/s41586-025-08628-5); validity as in Xie et al. 2022 (arXiv:2110.06197). Shares are of
all samples: nothing is repaired, and a sample that could not be evaluated counts against every share that needs the
evaluation (validity of composition and structure does not). Every number has its denominator and a 95 % interval
(`measures.bootstrap`). Evaluation only: nothing here is part of a reward.

Unlike elsewhere, SUN and mSUN count only systems whose hull holds a compound; the others stand in rows of their own,
and the sum of both is the usual number. Intervals of unique, SUN and mSUN resample the verdicts as they are: a
duplicate does not become unique because a resample happens to miss the first of its group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from ase.data import chemical_symbols

from atomrl.evaluation.definition import SKIPPED, Definition, Scorecard
from atomrl.matching.matcher import Tolerances
from atomrl.measures.bootstrap import RESAMPLES, Estimate, mean, median, proportion
from atomrl.measures.crystal_validity import describe
from atomrl.measures.crystal_verdicts import METASTABLE, MIN_VOLUME, STABLE, TOLERANCE, CrystalVerdicts
from atomrl.measures.frechet import diversity
from atomrl.measures.measure import component_metric
from atomrl.util.errors import UserError

PROFILE = "mp20-2025"

METRICS: Mapping[str, Definition] = {
    "msun": Definition("mSUN (metastable, unique, novel)", "%", "samples", "higher"),
    "sun": Definition("SUN (stable, unique, novel)", "%", "samples", "higher"),
    "msun_no_compound": Definition("mSUN where the hull holds no compound", "%", "samples", "neither"),
    "sun_no_compound": Definition("SUN where the hull holds no compound", "%", "samples", "neither"),
    "metastable": Definition("metastable (<= 0.1 eV/atom)", "%", "samples", "higher"),
    "stable": Definition("stable (<= 0 eV/atom)", "%", "samples", "higher"),
    "unique": Definition("unique", "%", "samples", "higher"),
    "novel": Definition("novel", "%", "samples", "higher"),
    "composition_validity": Definition("composition validity (SMACT)", "%", "samples", "higher"),
    "composition_validity_mixed_valence": Definition(
        "composition validity, mixed valence allowed", "%", "samples", "higher"
    ),
    "structure_validity": Definition("structural validity", "%", "samples", "higher"),
    "e_above_hull_median": Definition("energy above hull, median (failure = inf)", "eV/atom", "samples", "lower"),
    "e_above_hull_mean": Definition("energy above hull, mean of evaluated", "eV/atom", "evaluated", "lower"),
    "evaluation_failures": Definition("no energy above hull", "%", "samples", "lower"),
    "structure_diversity": Definition("structure diversity, 1 / (1 + Fréchet)", "", "with features", "higher"),
    "composition_diversity": Definition("composition diversity, 1 / (1 + Fréchet)", "", "with features", "higher"),
}
"""In the order of the table."""

SHARES = {
    "msun": "msun",
    "sun": "sun",
    "msun_no_compound": "msun_no_compound",
    "sun_no_compound": "sun_no_compound",
    "metastable": "metastable",
    "stable": "stable",
    "unique": "unique",
    "novel": "novel",
    "composition_validity": "composition_valid",
    "composition_validity_mixed_valence": "composition_valid_mixed_valence",
    "structure_validity": "structure_valid",
}
"""Metrics that are the share of a flag of `CrystalVerdicts`."""
DIVERSITIES = {"structure_diversity": "structure_features", "composition_diversity": "composition_features"}


CrystalScorecard = Scorecard[CrystalVerdicts]
"""The verdict on a set of crystals."""


def evaluate_crystals(
    samples: CrystalVerdicts,
    *,
    evaluator: str,
    novelty_set: str,
    features: str = "none",
    geometry: str = "as sampled",
    tolerances: Tolerances | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> CrystalScorecard:
    """Sum up the verdicts on B independent samples.

    Args:
        samples: of `judge_crystals`.
        evaluator: force field and hull, for the record, e.g. `HullProvider.description`.
        novelty_set: what novelty was measured against, for the record.
        features: whose features, and of which reference, for the record.
        geometry: `as sampled`, or what relaxed it, for the record.
        tolerances: of the matcher, for the record; its defaults if None.
        seed: of the bootstrap and of the jackknife's blocks.
        resamples: of the bootstrap.

    Raises:
        UserError: there is no sample.
    """
    if not len(samples):
        raise UserError("cannot evaluate 0 crystals: give at least one sample")
    match = tolerances or Tolerances()
    mixed_valence = samples.composition_valid_mixed_valence is not None
    return CrystalScorecard(
        definitions={**METRICS, **component_definitions(samples.components)},
        profile=PROFILE,
        conditions={
            "geometry": geometry,
            "thresholds": f"stable {STABLE}, metastable {METASTABLE} eV/atom, both + {TOLERANCE:g} for rounding; "
            "a sample that could not be evaluated is neither",
            "hull": "SUN and mSUN count systems whose hull holds a compound, the rows beside them all others",
            "composition_validity": describe(samples.oxidation_states),
            **(
                {"composition_validity_mixed_valence": describe(samples.oxidation_states, mixed_valence=True)}
                if mixed_valence
                else {}
            ),
            "structure_validity": f"all distances >= 0.5 Å (own images too), volume >= {MIN_VOLUME} Å³",
            "matcher": f"StructureMatcher, ltol {match.ltol}, stol {match.stol}, angle_tol {match.angle_tol}",
            "novelty_set": novelty_set,
            "features": features,
            "intervals": f"95 %, {resamples} bootstrap resamples, seed {seed}; block jackknife for diversity",
        },
        evaluator=SKIPPED if samples.e_above_hull is None else evaluator,
        summary=_summary(samples, seed, resamples),
        samples=samples,
        sizes=dict(sorted(Counter(samples.sizes.tolist()).items())),
        elements={_symbol(number): count for number, count in sorted(samples.elements.items())},
        failures={
            name: dict(Counter(reason for reason in reasons if reason is not None).most_common())
            for name, reasons in samples.reasons.items()
        },
    )


def component_definitions(components: Iterable[str]) -> dict[str, Definition]:
    """Rows for reward components that pay for no metric of the profile: the mean of what each computes."""
    return {
        component_metric(name): Definition(f"reward component {name}, mean", "", "scored", "higher")
        for name in components
    }


def _summary(samples: CrystalVerdicts, seed: int, resamples: int) -> dict[str, Estimate]:
    """All estimates, in the order of `METRICS`."""
    found = {
        name: proportion(samples.flags[flag], seed, resamples) for name, flag in SHARES.items() if flag in samples.flags
    }
    if samples.e_above_hull is not None:
        found["e_above_hull_median"] = median(samples.e_above_hull, seed, resamples)
        found["e_above_hull_mean"] = mean(samples.e_above_hull, seed, resamples)
        found["evaluation_failures"] = proportion(np.isinf(samples.e_above_hull), seed, resamples)
    for name, source in DIVERSITIES.items():
        if source in samples.features:
            found[name] = _diversity(samples, source, seed)
    for name, values in samples.components.items():
        found[component_metric(name)] = mean(values, seed, resamples)
    order = (*METRICS, *map(component_metric, samples.components))
    return {name: found[name] for name in order if name in found}


def _diversity(samples: CrystalVerdicts, name: str, seed: int) -> Estimate:
    """Diversity of the samples whose features are known."""
    metric = samples.features[name]
    if metric.reference is None:
        raise UserError(f"diversity compares {name} with a reference set, and its provider has none")
    known = metric.values.isfinite().all(1)
    return diversity(metric.values[known].numpy(), metric.reference.double().numpy(), seed)


def _symbol(number: int) -> str:
    """Of an element; `Z=...` for a value that is not a number."""
    return chemical_symbols[number] if 0 < number < len(chemical_symbols) else f"Z={number}"
