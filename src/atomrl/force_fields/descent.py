"""Following forces to a minimum by an optimizer of ASE. Worker processes import this module: no torch in here."""

from __future__ import annotations

import time

from ase.optimize.optimize import Optimizer

UNCONVERGED = "unconverged"
SLOW = "slow"


def descend(search: Optimizer, fmax: float, max_steps: int, max_seconds: float) -> str | None:
    """Step until no force exceeds `fmax`; why that was not reached, or None.

    Args:
        search: around what moves.
        fmax: eV/Å.
        max_steps: after which it is `unconverged`.
        max_seconds: after which it is `slow`, looked at after each step: of this process's processor time, so that a
            busy machine does not decide what converges.
    """
    started = time.process_time()
    for converged in search.irun(fmax=fmax, steps=max_steps):  # type: ignore[no-untyped-call]
        if converged:
            return None
        if time.process_time() - started > max_seconds:
            return SLOW
    return UNCONVERGED
