"""Crystal structure prediction, judged: how many held-out crystals come back, of a model and of a look-up beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from atomrl.core.protocols import Model
from atomrl.core.records import Structures
from atomrl.evaluation.compositions import Composition, Found, composition_condition, predict_structures
from atomrl.evaluation.evaluate import SamplePlan
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.evaluation.nearest_formula import NearestFormulas
from atomrl.evaluation.reconstruction import mismatches
from atomrl.evaluation.table import cell, json_estimate, json_number
from atomrl.matching.matcher import reduced_formula
from atomrl.measures.bootstrap import Estimate, proportion
from atomrl.structures.cells import Crystal
from atomrl.structures.crystals import compositions_of, from_crystals, readable_formula
from atomrl.util.progress import bar

MATCH = "match"
"""Verdict on a guess that is the crystal; any other one is a reason why not."""

COMPOSITION, SIZE, NONE = "composition", "size", "no_candidate"
"""Why there is nothing to compare: no walk ended at the formula; the model knows no crystal of as many atoms; the
look-up knows none with as many atoms of each kind."""

Verdicts = Sequence[Sequence[str]]
"""For each crystal one of each guess, the best guess first; fewer than the others have where there are no more."""


@dataclass(frozen=True)
class Prediction:
    """What came of T crystals that were asked for.

    Attributes:
        formulas: of the crystals, (T,).
        atoms: in their cells, (T,).
        guesses: samples of each crystal, and looked-up crystals at most.
        model: verdicts on the samples, `guesses` for each crystal.
        look_up: verdicts on known crystals of the nearest formulas.
        nearest: formulas of these known crystals, and how far they are.
        walks: that the samples took.
    """

    formulas: tuple[str, ...]
    atoms: tuple[int, ...]
    guesses: int
    model: Verdicts
    look_up: Verdicts
    nearest: Sequence[Sequence[tuple[str, float]]]
    walks: int

    @property
    def counts(self) -> tuple[int, ...]:
        """Of guesses, for which there is a match rate: one, and all of them."""
        return (1,) if self.guesses == 1 else (1, self.guesses)

    def rate(self, verdicts: Verdicts, guesses: int) -> Estimate:
        """Share of the crystals that one of the first so many guesses matches; without a guess it is a miss."""
        return proportion(found(verdicts, guesses), 0)

    def markdown(self, notes: Sequence[str] = ()) -> str:
        """The table for people, what is behind it, and further notes."""
        lines = ["| match rate, % | model | nearest formula |", "|---|---:|---:|"]
        for count in self.counts:
            head = "the first guess" if count == 1 else f"any of {count} guesses"
            cells = (cell(self.rate(verdicts, count), "%", "crystals") for verdicts in (self.model, self.look_up))
            lines.append(f"| {head} | {' | '.join(cells)} |")
        return "\n".join([*lines, "", *(f"- {note}" for note in (*self._notes(), *notes))]) + "\n"

    def as_json(self) -> dict[str, object]:
        """The same for programs, and a record of each crystal."""
        columns = {"model": self.model, "nearest_formula": self.look_up}
        return {
            "crystals": len(self.formulas),
            "formulas": len(set(self.formulas)),
            "without_candidate": self.without_candidate,
            "walks": self.walks,
            "match_rate": {
                name: {str(count): json_estimate(self.rate(verdicts, count)) for count in self.counts}
                for name, verdicts in columns.items()
            },
            "verdicts": {name: _tally(verdicts) for name, verdicts in columns.items()},
            "of_each": [
                {
                    "formula": formula,
                    "atoms": atoms,
                    "model": list(samples),
                    "nearest_formula": [
                        {"of": name, "distance": json_number(distance), "verdict": verdict}
                        for (name, distance), verdict in zip(near, known, strict=True)
                    ],
                }
                for formula, atoms, samples, near, known in zip(
                    self.formulas, self.atoms, self.model, self.nearest, self.look_up, strict=True
                )
            ],
        }

    @property
    def without_candidate(self) -> int:
        """Crystals for which the look-up knows nothing."""
        return sum(not known for known in self.look_up)

    def _notes(self) -> list[str]:
        """What the table rests on."""
        ours, theirs = (found(verdicts, self.guesses) for verdicts in (self.model, self.look_up))
        both, model, known = int((ours & theirs).sum()), int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        return [
            f"{len(self.formulas):,} crystals of {len(set(self.formulas)):,} formulas: {both} matched by both, {model} "
            f"by the model alone, {known} by the look-up alone, {len(self.formulas) - both - model - known} by neither",
            f"model: {self.guesses} samples of each, {self.walks:,} walks: {_said(_tally(self.model))}",
            f"nearest formula: the {self.guesses} nearest of each; {self.without_candidate} have none, a miss: "
            f"{_said(_tally(self.look_up))}",
        ]


def held_out(known: Sequence[Crystal], others: Sequence[Crystal]) -> list[Crystal]:
    """Those of the other crystals whose reduced formula no known crystal has."""
    formulas = {reduced_formula(crystal) for crystal in known}
    return [crystal for crystal in others if reduced_formula(crystal) not in formulas]


def predict(
    model: Model,
    known: Sequence[Crystal],
    wanted: Sequence[Crystal],
    plan: SamplePlan,
    tries: int,
    device: torch.device,
    kept: KeptSamples | None = None,
) -> Prediction:
    """Ask a model for the formulas and numbers of atoms of crystals, look the same up, and compare.

    Args:
        model: conditioned on composition.
        known: the crystals that it was trained on.
        wanted: crystals that it was not trained on, at least one.
        plan: how many samples of each, and how to walk.
        tries: walks of a sample at most; one that never has the formula is a miss.
        device: to sample on.
        kept: batches of a command that was stopped.

    Raises:
        UserError: the model is not conditioned on composition, as `predict_structures`.
    """
    composition_condition(model)
    formulas = [readable_formula(composition) for composition in compositions_of(wanted)]
    samples = _samples(model, wanted, formulas, plan, tries, device, kept)
    look_up = NearestFormulas(known)
    near = [look_up.nearest(crystal, plan.count) for crystal in wanted]
    rows = sorted({neighbor.row for neighbors in near for neighbor in neighbors})
    names = dict(zip(rows, map(readable_formula, compositions_of(known[row] for row in rows)), strict=True))
    return Prediction(
        tuple(formulas),
        tuple(len(crystal.numbers) for crystal in wanted),
        plan.count,
        [
            _of_samples(crystal, one, plan.count)
            for crystal, one in zip(wanted, bar(samples, "match samples"), strict=True)
        ],
        [
            _verdicts(crystal, from_crystals([neighbor.crystal for neighbor in neighbors]))
            for crystal, neighbors in zip(wanted, bar(near, "match known"), strict=True)
        ],
        [[(names[neighbor.row], neighbor.distance) for neighbor in neighbors] for neighbors in near],
        sum(one.drawn for one in samples if one is not None),
    )


def _samples(
    model: Model,
    wanted: Sequence[Crystal],
    formulas: Sequence[str],
    plan: SamplePlan,
    tries: int,
    device: torch.device,
    kept: KeptSamples | None,
) -> list[Found | None]:
    """What a model makes of the formula and number of atoms of each crystal; None where it knows no such number."""
    asked = [row for row, crystal in enumerate(wanted) if model.sizes.get(len(crystal.numbers))]
    cells = [len(wanted[row].numbers) // Composition.of(formulas[row]).atoms for row in asked]
    compositions = [Composition.of(formulas[row], (units,)) for row, units in zip(asked, cells, strict=True)]
    made = predict_structures(model, compositions, plan, tries, device, kept) if asked else []
    of_row = dict(zip(asked, made, strict=True))
    return [of_row.get(row) for row in range(len(wanted))]


def found(verdicts: Verdicts, guesses: int) -> NDArray[np.bool_]:
    """Which crystals one of the first so many guesses matches, (T,)."""
    return np.array([MATCH in one[:guesses] for one in verdicts], dtype=np.bool_)


def _of_samples(crystal: Crystal, one: Found | None, count: int) -> list[str]:
    """A verdict on each of so many samples."""
    if one is None:
        return [SIZE] * count
    judged = iter(_verdicts(crystal, one.structures))
    return [next(judged) if has_formula else COMPOSITION for has_formula in one.passed.tolist()]


def _verdicts(crystal: Crystal, guesses: Structures) -> list[str]:
    """On each of some crystals of the same formula."""
    if not len(guesses):
        return []
    originals = from_crystals([crystal] * len(guesses))
    return [MATCH if reason is None else reason for reason in mismatches(originals, guesses)]


def _tally(verdicts: Verdicts) -> Mapping[str, int]:
    """How often each verdict was passed, the most frequent first."""
    counts = Counter(verdict for one in verdicts for verdict in (one or [NONE]))
    return dict(counts.most_common())


def _said(tally: Mapping[str, int]) -> str:
    """In words."""
    return ", ".join(f"{verdict} {count:,}" for verdict, count in tally.items())
