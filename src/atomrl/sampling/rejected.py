"""`atomrl sample --reject`: what a check without any scoring refuses is drawn again."""

from __future__ import annotations

from typing import Any

from atomrl.core.records import Prompts
from atomrl.domains.base import Domain
from atomrl.evaluation.rejection import in_lots, until_accepted
from atomrl.sampling.sample_file import KEPT, Counts, Drawing, Part, Wanted
from atomrl.util.errors import UserError

DRAWN = "drawn"


class Rejecting(Drawing):
    """Each sample is drawn until it passes; one that never does is left out.

    Args:
        wanted: the samples.
        domain: of these, which says what passes.
        tries: of a sample at most.
    """

    def __init__(self, wanted: Wanted, domain: Domain[Any, Any], tries: int) -> None:
        self._domain, self._tries = domain, tries
        super().__init__(wanted, in_lots(wanted.prompts), {"choice": f"--reject {self._tries}"})

    def draw(self, chunk: Prompts) -> Part:
        """See `Drawing`."""
        policy, plan, accepts = self.wanted.policy, self.wanted.plan, self._domain.accepts
        found = until_accepted(policy, chunk, plan, self._tries, lambda structures, _: accepts(structures))
        ids = chunk.sample_ids.cpu()[found.passed]
        return Part(found.accepted, ids, {DRAWN: found.drawn})

    def cost(self, counts: Counts) -> str:
        """How many were drawn, and how many never passed."""
        kept, wanted, accepted = counts[KEPT], len(self.wanted.prompts), self._domain.accepted
        if not kept:
            raise UserError(
                f"--reject: none of {counts[DRAWN]:,} {self._domain.noun} is {accepted}; raise it, or --time-step"
            )
        never = f"; {wanted - kept} of {wanted} never were" if kept < wanted else ""
        return f", {accepted}, of {counts[DRAWN]:,} that were drawn{never}"
