"""`atomrl sample --compositions`: crystals of given formulas, and a line about each of them."""

from __future__ import annotations

import argparse
from collections import Counter

import torch

from atomrl.core.protocols import Model
from atomrl.core.records import Structures
from atomrl.evaluation.compositions import Composition, Found, predict_structures
from atomrl.evaluation.evaluate import SamplePlan
from atomrl.structures.crystals import compositions, readable_formula
from atomrl.util.errors import UserError


def asked_compositions(options: argparse.Namespace) -> list[Composition]:
    """What `--compositions` names.

    Raises:
        UserError: a formula that is none or comes twice, an option that does not go with it, or one that needs it.
    """
    if not options.compositions:
        if options.formula_units:
            raise UserError("--formula-units is about formulas: give --compositions too")
        return []
    others = {"--sizes": options.sizes, "--best-of": options.best_of, "--steer": options.steer}
    if given := [name for name, value in (others | {"--reject": options.reject}).items() if value]:
        raise UserError(f"--compositions and {' and '.join(given)} do not go together: leave one out")
    if options.tries < 1:
        raise UserError(f"--tries {options.tries}: must be at least 1")
    if min(options.formula_units, default=1) < 1:
        raise UserError(f"--formula-units {min(options.formula_units)}: must be at least 1")
    found: dict[tuple[int, ...], Composition] = {}
    for formula in options.compositions:
        try:
            wanted = Composition.of(formula, options.formula_units)
        except UserError as error:
            raise UserError(f"--compositions {formula}: {error}") from error
        before = found.setdefault(tuple(wanted.counts.tolist()), wanted)
        if before is not wanted:
            raise UserError(f"--compositions: {before.formula} and {formula} are the same; name each once")
    return list(found.values())


def composition_samples(
    model: Model, wanted: list[Composition], options: argparse.Namespace, plan: SamplePlan, device: torch.device
) -> Structures:
    """Crystals of these compositions alone, in their order; prints what came of each.

    Raises:
        UserError: see `predict_structures`; or no sample has its composition.
    """
    found = predict_structures(model, wanted, plan, options.tries, device)
    for one in found:
        print(_line(one))
    structures = Structures.concatenate([one.structures for one in found])
    if not len(structures):
        raise UserError(
            f"no sample has the composition that was asked for, after {options.tries} tries each: raise --tries, "
            "--time-step or model.guidance_scale, or train the model longer"
        )
    return structures


def _line(found: Found) -> str:
    """Asked, got, walks, and what the others were."""
    line = f"{found.composition.formula}: {found.asked} asked, {len(found.structures)} got, {found.drawn} drawn"
    if not len(found.others):
        return line
    formulas = Counter(readable_formula(formula) for formula in compositions(found.others))
    formula, times = formulas.most_common(1)[0]
    return f"{line}; {len(found.others)} had another composition each time, at last {formula} ({times})"
