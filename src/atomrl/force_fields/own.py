"""A force field of the user's, in this process: what it raises, and what it answers, is told by its own line."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from atomrl.force_fields.base import NONFINITE, Evaluation
from atomrl.user_code.calling import calling
from atomrl.util.errors import UserError

if TYPE_CHECKING:
    from atomrl.core.protocols import Result
    from atomrl.core.records import Structures


class OwnForceField:
    """Asks an object of the user's; implements `protocols.ForceField`, and has whatever else that object has.

    Args:
        inner: with `elements`, `evaluate` and `close`.
        name: as the configuration names it, for messages.
        borrowed: somebody else closes it.
    """

    def __init__(self, inner: Any, name: str, borrowed: bool = False) -> None:
        self.inner, self.name, self._borrowed = inner, name, borrowed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def evaluate(self, structures: Structures) -> Sequence[Result]:
        """One result per structure, in order; an energy that is not finite is none, for `nonfinite_result`.

        Raises:
            UserError: it raises an exception, or answers something else.
        """
        sizes = structures.sizes.tolist()
        with calling(f"the force field {self.name}", self.inner, f"called on {len(structures)} structures"):
            results: Sequence[Result] = self.inner.evaluate(structures)
            self._check(results, sizes)
        return [_settled(result, atoms) for result, atoms in zip(results, sizes, strict=True)]

    def close(self) -> None:
        """Close it, unless it is borrowed."""
        if self._borrowed:
            return
        with calling(f"the force field {self.name}", self.inner, "closed at the end"):
            self.inner.close()

    def _check(self, results: Sequence[Any], sizes: Sequence[int]) -> None:
        """Raise UserError for what is no result of each structure."""
        if not isinstance(results, Sequence) or len(results) != len(sizes):
            raise UserError(
                f"the force field {self.name}: evaluate must return a list of {len(sizes)} results, one per structure, "
                f"got {f'{len(results)} of them' if isinstance(results, Sequence) else type(results).__name__}"
            )
        for row, (result, atoms) in enumerate(zip(results, sizes, strict=True)):
            if lacking := [part for part in ("energy", "forces", "reason") if not hasattr(result, part)]:
                raise UserError(
                    f"the force field {self.name}: the result of structure {row}, {type(result).__name__}, has no "
                    f"{' and no '.join(lacking)}: return atomrl.force_fields.base.Evaluation"
                )
            if result.reason is None and not _is_number(result.energy):
                raise UserError(
                    f"the force field {self.name}: the energy of structure {row} is {result.energy!r}; return a "
                    "number, eV, or NaN with a reason"
                )
            if result.reason is None and result.forces is not None and np.shape(result.forces) != (atoms, 3):
                raise UserError(
                    f"the force field {self.name}: the forces of structure {row} have the shape "
                    f"{np.shape(result.forces)}; return ({atoms}, 3), eV/Å"
                )


def _is_number(energy: Any) -> bool:
    """Whether it is one, perhaps as an array or a tensor."""
    try:
        float(energy)
    except (TypeError, ValueError):
        return False
    return True


def _settled(result: Result, atoms: int) -> Result:
    """The result; in place of a failed one, which need not have numbers, one whose numbers are all NaN."""
    if result.reason is None and isfinite(float(result.energy)):
        return result
    return Evaluation.failed(atoms, NONFINITE if result.reason is None else result.reason)
