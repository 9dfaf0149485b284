"""`atomrl sample --compositions`: crystals of given formulas, and a line about each of them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence

import torch

from atomrl.core.protocols import Model
from atomrl.core.records import Prompts
from atomrl.evaluation.compositions import AskedCompositions, Composition
from atomrl.evaluation.evaluate import SamplePlan, ready_policy
from atomrl.evaluation.rejection import in_lots, until_accepted
from atomrl.sampling.sample_file import KEPT, Counts, Drawing, Part, Wanted
from atomrl.structures.crystals import compositions, readable_formula
from atomrl.util.errors import UserError
from atomrl.util.growing_file import Settings

TRIES = 20
"""Most walks for each sample, if the user does not say."""


def asked_compositions(options: argparse.Namespace) -> list[Composition]:
    """What `--compositions` names.

    Raises:
        UserError: a formula that is none or comes twice, an option that does not go with it, or one that needs it.
    """
    if not options.compositions:
        about = {"--formula-units": options.formula_units or None, "--tries": options.tries}
        if given := [name for name, value in about.items() if value is not None]:
            raise UserError(f"{given[0]} is about formulas: give --compositions too")
        return []
    others = {"--sizes": options.sizes, "--best-of": options.best_of, "--steer": options.steer}
    if given := [name for name, value in (others | {"--reject": options.reject}).items() if value]:
        raise UserError(f"--compositions and {' and '.join(given)} do not go together: leave one out")
    if options.tries is not None and options.tries < 1:
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


class Predicting(Drawing):
    """Crystals of given compositions alone, in their order; a sample of another composition is drawn again.

    Args:
        model: conditioned on composition.
        compositions: that are asked for.
        options: of the command.
        plan: how many of each, and how to walk.
        device: to sample on.
        sampler: its options.

    Raises:
        UserError: see `predict_structures`.
    """

    def __init__(
        self,
        model: Model,
        compositions: Sequence[Composition],
        options: argparse.Namespace,
        plan: SamplePlan,
        device: torch.device,
        sampler: str,
    ) -> None:
        self._asked, self._tries = AskedCompositions.of(model, compositions, plan), options.tries or TRIES
        prompts = self._asked.prompts.to(device)
        choice: Settings = {
            "choice": "--compositions",
            "compositions": [one.formula for one in compositions],
            "formula units": options.formula_units,
            "tries": self._tries,
        }
        super().__init__(Wanted(ready_policy(model, device), prompts, plan, sampler), in_lots(prompts), choice)

    def draw(self, chunk: Prompts) -> Part:
        """See `Drawing`."""
        accepts = self._asked.has_composition
        found = until_accepted(self.wanted.policy, chunk, self.wanted.plan, self._tries, accepts)
        counts: Counter[str] = Counter()
        names = [self._asked.compositions[number].formula for number in self._asked.numbers(found.prompts).tolist()]
        made = compositions(found.structures)
        for name, formula, passed, walks in zip(names, made, found.passed.tolist(), found.walks.tolist(), strict=True):
            counts[_drawn(name)] += walks
            counts[_got(name) if passed else _instead(name, readable_formula(formula))] += 1
        return Part(found.accepted, chunk.sample_ids.cpu()[found.passed], counts)

    def lines(self, counts: Counts) -> list[str]:
        """Of each composition: asked, got, walks, and what the others were."""
        return [self._line(one.formula, counts) for one in self._asked.compositions]

    def _line(self, name: str, counts: Counts) -> str:
        each, got, walks = self._asked.each, counts[_got(name)], counts[_drawn(name)]
        line = f"{name}: {each} asked, {got} got, {walks} drawn"
        others = {key.removeprefix(_instead(name)): n for key, n in counts.items() if key.startswith(_instead(name))}
        if not others:
            return line
        formula, times = min(others.items(), key=lambda other: (-other[1], other[0]))
        return f"{line}; {each - got} had another composition each time, at last {formula} ({times})"

    def cost(self, counts: Counts) -> str:
        """Nothing that `lines` does not say."""
        if not counts[KEPT]:
            raise UserError(
                f"no sample has the composition that was asked for, after {self._tries} tries each: raise --tries, "
                "--time-step or model.guidance_scale, or train the model longer"
            )
        return ""


def _got(name: str) -> str:
    """What samples that have a composition are counted by."""
    return f"{name}: got"


def _drawn(name: str) -> str:
    """What the walks for a composition are counted by."""
    return f"{name}: drawn"


def _instead(name: str, formula: str = "") -> str:
    """What samples are counted by that have another formula, in place of a composition."""
    return f"{name}: instead {formula}"
