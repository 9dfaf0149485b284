"""CHGNet's energies, uniqueness and novelty against plain ways, and where the time of a crystal reward goes."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from chgnet.model import CHGNet
from pymatgen.core import Structure

from atomrl.core.records import Prompts, Structures
from atomrl.force_fields.chgnet import CHGNetForceField
from atomrl.matching.amd import AMDDistances
from atomrl.matching.matcher import CrystalMatcher, Verdicts
from atomrl.measures.matching import AMDProvider, MatchingProvider
from atomrl.measures.physics import HullProvider, vae_feature_provider
from atomrl.rewards.components import (
    CompositionDiversityReward,
    CreativityReward,
    EnergyReward,
    StructureDiversityReward,
)
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.structures.crystals import to_crystals, to_pymatgen
from benchmarks import plain_matching
from benchmarks.crystal_source import CrystalSource, sound
from benchmarks.plain_matching import PlainVerdicts
from benchmarks.timing import Ratio, interleaved

WORKERS = 2
SAME_ENERGY = 1e-4
"""eV/atom, largest difference that rounding may make."""


@dataclass(frozen=True)
class Part:
    """Seconds of one part of a whole.

    Attributes:
        name: of the part.
        seconds: on the wall.
    """

    name: str
    seconds: float

    def line(self) -> str:
        """One row under `timing.HEADER`, in the column of our seconds."""
        return f"{self.name:<49}{self.seconds:9.3f}"


def chgnet(source: CrystalSource, count: int, turns: int, clock: str) -> Iterator[Ratio]:
    """Energies by single calls of the package's own function, against batches here and in workers.

    Those in workers are timed on the wall, since their work is not this process's.

    Raises:
        ValueError: the two disagree.
    """
    structures = sound(source.samples(count, seed=0))
    crystals = to_pymatgen(structures)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its number of parameters
        model = CHGNet.load(use_device="cpu", verbose=False)
    expected = _single_energies(model, crystals)
    name = f"CHGNet, {len(crystals)} samples, batched"
    for number, label, by, target in ((0, name, clock, None), (WORKERS, f"{name}, {WORKERS} workers", "wall", 2.5)):
        force_field = CHGNetForceField(workers=number, device="cpu")
        try:
            apart = _difference(force_field, structures, expected)  # also loads the weights, and starts the workers
            seconds = interleaved(
                lambda: _single_energies(model, crystals),
                lambda field=force_field: field.evaluate(structures),  # type: ignore[misc]
                turns,
                by,
            )
        finally:
            force_field.close()
        yield Ratio(label, *seconds, target, f"{apart:.0e} eV/atom")


def matching(source: CrystalSource, count: int, turns: int) -> Iterator[Ratio]:
    """Uniqueness and novelty in workers, on the wall, against the plain loop in one process.

    The first call reduces the references that it needs; the second one knows them, as in a training.

    Raises:
        ValueError: a verdict differs, or is missing.
    """
    samples, known = sound(source.samples(count, seed=0)), source.references
    crystals, references = to_crystals(samples), to_crystals(known)
    structures, plain_references = to_pymatgen(samples), to_pymatgen(known)
    best = [float("inf")] * 3
    for _ in range(turns):
        started = time.perf_counter()
        expected = plain_matching.match(plain_references, structures)
        seconds = [time.perf_counter() - started]
        with CrystalMatcher(references, WORKERS) as matcher:
            matcher.match(references[:1] * 2 * WORKERS)  # starts the workers
            for _ in range(2):
                started = time.perf_counter()
                found = matcher.match(crystals)
                seconds.append(time.perf_counter() - started)
                _compare(expected, found)
        best = [min(pair) for pair in zip(best, seconds, strict=True)]
    plain, first, again = best
    lost = (
        f"nothing; {expected.unique.count(False)} not unique, {expected.novel.count(False)} not novel; "
        f"ours in {WORKERS} workers"
    )
    yield Ratio(f"matching, {len(crystals)} samples, {expected.pairs} pairs", plain, first, 10.0, lost)
    yield Ratio("the same, references known", plain, again, None, lost)


def reward(source: CrystalSource, samples: int) -> Iterator[Part]:
    """One scoring of a batch by the published reward, when workers are warm and references known."""
    structures = [source.samples(samples, seed) for seed in (1, 2)]
    scorer = published_reward(source)
    ids = torch.arange(samples)
    try:
        for batch in structures:
            started = time.perf_counter()
            table = scorer.score(batch, Prompts(0, 0, batch.sizes, ids, ids))
            seconds = time.perf_counter() - started
    finally:
        scorer.close()
    failed = sum(reason is not None for reason in table.reasons)
    yield Part(f"reward, {samples} samples, {failed} failed", seconds)
    for part, spent in table.seconds.items():
        yield Part(f"    of which {part}" if part.startswith("metric_") else f"  {part}", spent)


def published_reward(source: CrystalSource) -> ReinforceReward:
    """The documented four components (`mp_20/rl_dng`) with the package's judges."""
    references = source.references
    known = to_crystals(references)
    return ReinforceReward(
        [
            CreativityReward(weight=1.0),
            EnergyReward(weight=1.0, normalize_fn="norm"),
            StructureDiversityReward(weight=0.1, normalize_fn="norm"),
            CompositionDiversityReward(weight=1.0, normalize_fn="norm"),
        ],
        providers=[
            MatchingProvider(CrystalMatcher(known, WORKERS)),
            AMDProvider(AMDDistances(known)),
            HullProvider(CHGNetForceField(workers=WORKERS), source.hull),
            vae_feature_provider(source.vae, references),
        ],
    )


def _single_energies(model: CHGNet, crystals: Sequence[Structure]) -> list[float]:
    """eV/atom, crystal by crystal."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Converting a tensor with requires_grad=True to a scalar", UserWarning)
        answers: list[Any] = [model.predict_structure(crystal, task="e") for crystal in crystals]
    return [float(answer["e"]) for answer in answers]


def _difference(force_field: CHGNetForceField, structures: Structures, expected: Sequence[float]) -> float:
    """Largest difference of the energies, eV/atom."""
    found = force_field.evaluate(structures)
    pairs = zip(found, structures.sizes.tolist(), expected, strict=True)
    apart: float = max(abs(result.energy / size - energy) for result, size, energy in pairs)
    reasons = sorted({result.reason for result in found if result.reason is not None})
    if reasons or not apart <= SAME_ENERGY:
        raise ValueError(f"batched energies are off by {apart:.1e} eV/atom, or missing: {reasons}")
    return apart


def _compare(expected: PlainVerdicts, found: tuple[Verdicts, Verdicts]) -> None:
    """Raise where a verdict is another than that of the plain loop."""
    for name, plain, verdicts in zip(("unique", "novel"), (expected.unique, expected.novel), found, strict=True):
        pairs = zip(plain, verdicts.values.tolist(), verdicts.reasons, strict=True)
        rows = [row for row, (one, other, reason) in enumerate(pairs) if one != other or reason is not None]
        if rows:
            raise ValueError(f"{name}: {len(rows)} verdicts differ from the plain loop's, e.g. of crystal {rows[0]}")
