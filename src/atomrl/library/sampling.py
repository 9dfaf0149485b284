"""`atomrl.sample`: samples of a model in memory, and in a file if one is named."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from atomrl.core.records import Structures
from atomrl.domains.base import Domain
from atomrl.evaluation.evaluate import sample as draw
from atomrl.evaluation.evaluate import warn_of_unseen
from atomrl.library.loading import SAMPLED, SEED, Source, asking, loaded, sample_plan
from atomrl.structures.listing import to_atoms
from atomrl.util.device import choose_device
from atomrl.util.errors import UserError
from atomrl.util.files import require_writable
from atomrl.util.glibc_malloc import freed_memory_kept

log = logging.getLogger(__name__)


@freed_memory_kept()
def sample(
    source: Source,
    count: int = SAMPLED,
    *,
    time_step: int | None = None,
    seed: int = SEED,
    sizes: Sequence[int] = (),
    context: Mapping[str, str | float] | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    output: str | Path | None = None,
) -> list[Atoms]:
    """Draw molecules or crystals from a model.

    Examples:
        >>> molecules = atomrl.sample("edm_qm9_small", 3, time_step=10)
        >>> len(molecules), molecules[0].positions.shape[1]
        (3, 3)

    Args:
        source: as of `atomrl.load`.
        count: how many.
        time_step: T, transitions of the walk; 100 for molecules and 50 for crystals if None.
        seed: of sizes and noise.
        sizes: numbers of atoms, of which each is drawn equally often; empty: as in the model's histogram.
        context: {name: value} that a conditional model is asked for, e.g. {"alpha": 75.0} (Bohr^3); it draws the rest.
        overrides: `key=value` of the section `model`.
        device: `auto`, `cpu` or `cuda`.
        output: also write them there, by the ending: .extxyz, .sdf (molecules) or .cif (crystals).

    Returns:
        As ASE has them, Å, in order of size; crystals with their cell. They are as they were sampled, unrelaxed.

    Raises:
        UserError: as `load`; a number that means nothing; what the model cannot be asked for; the file cannot be
            written.
    """
    found = loaded(source, overrides)
    path = None if output is None else writable(Path(output), found.domain)
    plan = asking(sample_plan(found.domain, count, time_step, seed, SAMPLED), sizes, context or {})
    warn_of_unseen([found.model], plan.asked)
    structures = draw(found.model, plan, choose_device(device))
    if path is not None:
        with found.domain.exporter(path.suffix[1:]) as exporter:
            left_out = len(structures) - exporter.write(path, structures)
        if left_out:
            log.warning(not_held(left_out, path, exporter.cannot_hold))
    return as_atoms(structures)


def not_held(count: int, path: Path, reason: str) -> str:
    """What to say of samples that a file's format cannot hold."""
    return f"{count} samples have no {path.suffix[1:].upper()} ({reason}): see an .extxyz file"


def writable(path: Path, domain: Domain[Any, Any]) -> Path:
    """A file for samples of a domain.

    Raises:
        UserError: its ending is of no format of theirs, it is a folder, or its folder cannot be written.
    """
    if path.suffix[1:] not in domain.formats:
        endings = " or ".join(f".{name}" for name in domain.formats)
        raise UserError(f"--output {path}: the ending must be one of {endings} for {domain.noun}")
    if path.is_dir():
        raise UserError(f"--output {path} is a folder: give a file in it")
    require_writable(path.parent, f"the folder of --output {path}")
    return path


def as_atoms(structures: Structures) -> list[Atoms]:
    """Samples as ASE has them."""
    plain = to_atoms(structures)
    if structures.cell is None:
        return plain
    cells = structures.cell.detach().cpu().double().numpy()
    return [
        Atoms(numbers=one.numbers, positions=one.positions, cell=cell, pbc=True)
        for one, cell in zip(plain, cells, strict=True)
    ]
