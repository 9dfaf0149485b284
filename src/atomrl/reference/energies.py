"""Energies of many known crystals, each kept on the disk as soon as it is there: a killed program goes on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atomrl.data.packed_crystals import PackedCrystals
from atomrl.force_fields.relax_batch import relax_batch
from atomrl.measures.physics import HullForceField
from atomrl.structures.crystals import from_crystals
from atomrl.util.errors import UserError
from atomrl.util.files import drop_partial_line, require_writable
from atomrl.util.progress import bar
from atomrl.workers.executor import may_pass

CHUNK = 256
"""Crystals between two savings, at most."""

FMAX = 0.1
"""eV/Å, at which a relaxation ends."""


@dataclass(frozen=True)
class Energies:
    """What is known of C crystals.

    Attributes:
        per_atom: eV/atom, (C,); NaN where there is none.
        reasons: why, or None, (C,).
    """

    per_atom: NDArray[np.float64]
    reasons: tuple[str | None, ...]

    @property
    def failures(self) -> str:
        """How many have none, by reason."""
        counts = Counter(reason.partition(":")[0] for reason in self.reasons if reason is not None)
        return ", ".join(f"{reason} {count}" for reason, count in counts.most_common()) or "none"


class EnergyFile:
    """Energies found so far: a first line that says what they depend on, and a line for each crystal.

    Args:
        path: of the file; it need not exist.
        settings: what the energies depend on, {name: text}.

    Raises:
        UserError: the file was begun with other settings, or is no such file, or its folder cannot be written.
    """

    def __init__(self, path: Path, settings: Mapping[str, str]) -> None:
        self._path = path
        self._known: dict[str, float | str] = {}
        require_writable(path.parent, str(path.parent))
        drop_partial_line(path)
        if path.exists() and path.stat().st_size:
            self._read(settings)
        else:
            path.write_text(json.dumps(settings) + "\n")

    def __contains__(self, digest: str) -> bool:
        return digest in self._known

    def __getitem__(self, digest: str) -> float | str:
        """Energy of a crystal, eV/atom, or why there is none."""
        return self._known[digest]

    def add(self, found: Mapping[str, float | str]) -> None:
        """Keep these, on the disk too."""
        self._known |= found
        lines = (json.dumps([digest, value]) + "\n" for digest, value in found.items())
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(lines))

    def _read(self, settings: Mapping[str, str]) -> None:
        """Take what the file holds; a failure that may pass is left to another try."""
        with self._path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    record = json.loads(line)
                    if number == 1:
                        self._compare(dict(record), settings)
                        continue
                    digest, value = record
                except (ValueError, TypeError) as error:
                    raise UserError(
                        f"cannot read the energies in {self._path}, line {number}: {error}; delete the file"
                    ) from error
                if not (isinstance(value, str) and may_pass(value)):
                    self._known[digest] = value

    def _compare(self, found: Mapping[str, str], settings: Mapping[str, str]) -> None:
        """Raise UserError for energies that were begun otherwise."""
        for name in settings:
            if found.get(name) != settings[name]:
                raise UserError(
                    f"{self._path} was begun with {name} {found.get(name)!r}, now it is {settings[name]!r}; "
                    "delete the file, or save to another folder"
                )


def energy_file(path: Path, force_field: HullForceField, relax_steps: int = 0, **settings: str) -> EnergyFile:
    """The file of a force field's energies, which also depend on `settings`; see `EnergyFile`."""
    about = {"model_id": force_field.model_id, "correction": force_field.correction}
    return EnergyFile(path, {**about, "relax_steps": str(relax_steps), **settings})


def find_energies(
    crystals: PackedCrystals,
    force_field: HullForceField,
    known: EnergyFile,
    relax_steps: int = 0,
    at_once: int | None = None,
) -> Energies:
    """Energies of crystals, those that a file does not hold yet evaluated now, with a progress bar.

    Crystals of like size are evaluated together, and equal ones once. What was evaluated but for the last `at_once` is
    in the file whenever the program ends.

    Args:
        crystals: C of them.
        force_field: with forces and stress if there is something to relax.
        known: the file, of the same force field and `relax_steps`.
        relax_steps: at most so many steps of relaxation come first; 0: as they are.
        at_once: crystals between two savings, and two steps of the progress bar; `CHUNK` if None.

    Raises:
        UserError: as the force field.
    """
    at_once = at_once or CHUNK
    digests = crystals.digests
    first = {digest: row for row, digest in reversed(list(enumerate(digests)))}
    left = sorted((row for digest, row in first.items() if digest not in known), key=lambda row: crystals.sizes[row])
    done = sum(digest in known for digest in digests)
    print(f"{len(digests):,} crystals, {done:,} done, {len(digests) - done:,} to do", flush=True)
    chunks = [left[start : start + at_once] for start in range(0, len(left), at_once)]
    for rows in bar(chunks, f"{at_once} crystals each"):
        values = _values(crystals, rows, force_field, relax_steps)
        known.add({digests[row]: value for row, value in zip(rows, values, strict=True)})
    found = [known[digest] for digest in digests]
    return Energies(
        np.array([np.nan if isinstance(value, str) else value for value in found]),
        tuple(value if isinstance(value, str) else None for value in found),
    )


def _values(
    crystals: PackedCrystals, rows: Sequence[int], force_field: HullForceField, relax_steps: int
) -> list[float | str]:
    """Energy of each of some crystals, eV/atom, or the reason why there is none."""
    batch = from_crystals([crystals.crystal(row) for row in rows])
    sizes = batch.sizes.tolist()
    if relax_steps:
        relaxed = relax_batch(force_field, batch, relax_steps, FMAX)
        pairs = zip(relaxed.energies.tolist(), relaxed.reasons, sizes, strict=True)
        return [energy / size if reason is None else reason for energy, reason, size in pairs]
    results = force_field.evaluate(batch)
    return [
        float(result.energy) / size if result.reason is None else result.reason
        for result, size in zip(results, sizes, strict=True)
    ]
