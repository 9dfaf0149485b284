"""Running means of an update's per-sample quantities, for the log."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from atomrl.core.protocols import Collective
from atomrl.core.records import Stats


class UpdateLog:
    """Running sums and maxima; no synchronisation with the device until the end."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._largest: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor, active: Tensor | None = None) -> None:
        """Add (n,) values, or those that are active, (n,) bool, to the mean that the log will show."""
        values = values.detach().double()
        weights = torch.ones_like(values) if active is None else active.double()
        if active is not None:
            values = torch.where(active, values, 0.0)
        entry = torch.stack([values.sum(), weights.sum()])
        self._sums[name] = self._sums[name] + entry if name in self._sums else entry

    def add_all(self, counts: Mapping[str, Tensor], largest: Mapping[str, Tensor], active: Tensor) -> None:
        """Add what an objective counts, (B,) each, of the active samples: means, and largest values."""
        for name, values in counts.items():
            self.add(name, values, active)
        for name, values in largest.items():
            found = torch.where(active, values.detach().double(), -torch.inf).max()
            self._largest[name] = torch.maximum(self._largest[name], found) if name in self._largest else found

    def means(self, collective: Collective) -> Stats:
        """Means and largest values over all ranks; a rank may have nothing of a name."""
        some = next(iter(self._sums.values()), torch.zeros(2, dtype=torch.float64))
        sums = _on_all_ranks(self._sums, torch.zeros_like(some), collective)
        largest = _on_all_ranks(self._largest, some.new_tensor(-torch.inf), collective)
        totals = {name: collective.sum(entry) for name, entry in sums.items()}
        means = {name: float(total[0] / total[1].clamp(min=1)) for name, total in totals.items()}
        return {**means, **{name: float(collective.gather(value[None]).max()) for name, value in largest.items()}}


def _on_all_ranks(own: Mapping[str, Tensor], missing: Tensor, collective: Collective) -> dict[str, Tensor]:
    """A rank's values with those `missing` that only other ranks have, so that all have the same names in one order."""
    text = torch.tensor(list("".join(f"{name}\n" for name in own).encode()), dtype=torch.uint8, device=missing.device)
    names = sorted({*bytes(collective.gather(text).tolist()).decode().split("\n")} - {""})
    return {name: own.get(name, missing) for name in names}
