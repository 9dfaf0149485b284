"""A force field that several ask about the same samples, each of which is computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from atomrl.structures.molecules import split

if TYPE_CHECKING:
    from atomrl.core.records import Structures
    from atomrl.force_fields.base import Evaluation
    from atomrl.force_fields.molecules import MoleculeForceField


class ComputedOnce:
    """Remembers the evaluations of the last samples, by their atoms and positions; implements `protocols.ForceField`.

    A reward by forces and one by properties then share one self-consistent field. Asked for some of the last samples,
    in any order, it computes nothing; otherwise it computes those that it does not know, and remembers all of them.

    Args:
        force_field: that computes; `close` closes it, at each call.
    """

    def __init__(self, force_field: MoleculeForceField) -> None:
        self.elements, self._force_field = force_field.elements, force_field
        self._last: dict[tuple[bytes, bytes], Evaluation] = {}

    def evaluate(self, structures: Structures) -> list[Evaluation]:
        """One result per structure, in order."""
        keys = [(geometry.numbers.tobytes(), geometry.positions.tobytes()) for geometry in split(structures)]
        last = self._last  # another thread may replace it meanwhile
        new = [row for row, key in enumerate(keys) if key not in last]
        if new:
            found = self._force_field.evaluate(structures[torch.tensor(new, device=structures.numbers.device)])
            known = {key: last[key] for key in keys if key in last}
            self._last = last = known | {keys[row]: result for row, result in zip(new, found, strict=True)}
        return [last[key] for key in keys]

    def remember(self, structures: Structures, results: Sequence[Evaluation]) -> None:
        """These are the last samples, and what is known of each."""
        keys = [(geometry.numbers.tobytes(), geometry.positions.tobytes()) for geometry in split(structures)]
        self._last = dict(zip(keys, results, strict=True))

    def atom_energies(self) -> Mapping[str, float]:
        """Those of the force field."""
        return self._force_field.atom_energies()

    def close(self) -> None:
        """Close the force field."""
        self._force_field.close()
