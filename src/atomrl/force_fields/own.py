"""A force field of the user's, in this process: what it raises, and what it answers, is told by its own line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from numbers import Integral
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

    Raises:
        UserError: its elements are no atomic numbers.
    """

    def __init__(self, inner: Any, name: str, borrowed: bool = False) -> None:
        self.inner, self.name, self._borrowed = inner, name, borrowed
        elements = inner.elements
        if not isinstance(elements, Collection) or not all(isinstance(one, Integral) for one in elements):
            raise UserError(
                f"the force field {name}: its elements are {elements!r}; give atomic numbers, frozenset({{1, 6, 8}})"
            )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def evaluate(self, structures: Structures) -> Sequence[Result]:
        """One result per structure, in order; one that is not finite counts as failed, `nonfinite_result`.

        Of crystals, forces may be left out: they are NaN then.

        Raises:
            UserError: it raises an exception, or answers something else.
        """
        sizes = structures.sizes.tolist()
        with calling(f"the force field {self.name}", self.inner, f"called on {len(structures)} structures"):
            results: Sequence[Result] = self.inner.evaluate(structures)
            self._check(results, sizes)
        settled = [_settled(result, atoms) for result, atoms in zip(results, sizes, strict=True)]
        if structures.cell is None:
            return settled
        return [_with_forces(result, atoms) for result, atoms in zip(settled, sizes, strict=True)]

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
            if not (result.reason is None or (isinstance(result.reason, str) and result.reason)):
                raise UserError(
                    f"the force field {self.name}: the reason of structure {row} is {result.reason!r}; give None where "
                    "there is a result, or a text"
                )
            if result.reason is None and (wrong := _no_numbers(result, atoms)):
                raise UserError(f"the force field {self.name}: of structure {row} {wrong}")


def _no_numbers(result: Any, atoms: int) -> str | None:
    """What keeps energy and forces from being those of a structure of this many atoms, as the end of a sentence."""
    energy, forces = result.energy, result.forces
    if np.shape(energy) != () or not hasattr(energy, "__float__"):
        got = f"of shape {np.shape(energy)}" if np.shape(energy) else repr(energy)
        return f"the energy is {got}; return one number, eV, or NaN with a reason"
    if forces is None:
        return None
    if not isinstance(forces, np.ndarray | list | tuple):
        return f"the forces are {type(forces).__name__}; return a NumPy array, eV/Å: `.detach().cpu().numpy()`"
    if np.shape(forces) != (atoms, 3):
        return f"the forces have the shape {np.shape(forces)}; return ({atoms}, 3), eV/Å"
    if (kind := np.asarray(forces).dtype).kind not in "fiu":
        return f"the forces are of NumPy's type {kind}; return real numbers, eV/Å"
    return None


def _settled(result: Result, atoms: int) -> Result:
    """The result; in place of one that failed or is not finite, which need not have numbers, one of NaN alone."""
    if result.reason is not None:
        return Evaluation.failed(atoms, result.reason)
    if np.isfinite(float(result.energy)) and (result.forces is None or np.isfinite(result.forces).all()):
        return result
    return Evaluation.failed(atoms, NONFINITE)


def _with_forces(result: Result, atoms: int) -> Result:
    """The result, with forces of NaN if it has none."""
    if result.forces is not None:
        return result
    return Evaluation(float(result.energy), np.full((atoms, 3), np.nan), None)
