"""`atomrl evaluate --structures`, and the same from Python: structures of any origin, judged as samples are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from atomrl.checkpoints.stored import read_stored
from atomrl.config import Config, as_trained
from atomrl.config.naming import listed_words
from atomrl.core.protocols import Model
from atomrl.core.records import Structures
from atomrl.data.structure_files import (
    CRYSTALS,
    MOLECULES,
    ReadStructures,
    as_structures,
    domain_of_entries,
    read_entries_of,
)
from atomrl.domains import domain_for, domain_named
from atomrl.domains.base import Domain
from atomrl.evaluation.evaluate import KNOWN_SET, Report, compare, in_file_name
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.evaluation.panel import Judged, Panel
from atomrl.evaluation.sample_table import SampleColumn
from atomrl.library.evaluation_options import overridden, require_new_table
from atomrl.library.loading import SEED
from atomrl.util.device import use_threads
from atomrl.util.errors import UserError, hinted
from atomrl.util.files import require_writable
from atomrl.workers.executor import Workers
from atomrl.workers.local import as_workers

Source = Path | str | Structures
"""A file, a folder, or structures in memory."""


def evaluate_structures(
    sources: Mapping[str, Source] | Sequence[Path | str] | Path | str,
    output: Path | str,
    *,
    domain: str | None = None,
    base: str | None = None,
    known: int = 0,
    seed: int = SEED,
    overrides: Sequence[str] = (),
    device: str = "auto",
    keep: Path | str | None = None,
    command: str = "atomrl.evaluate_structures(...)",
) -> Report:
    """Judge structures, and write the tables of `atomrl evaluate` into a folder.

    Nothing is repaired. What cannot be read counts as failed, in every denominator. An evaluation that was stopped goes
    on, if it is asked for the same again.

    Examples:
        >>> molecules = atomrl.sample("edm_qm9_small", 3, time_step=10, output="mine.extxyz")
        >>> report = atomrl.evaluate_structures(["mine.extxyz"], "my_judged_files")
        >>> report.main.columns[0].metrics.summary["validity"].denominator
        3

    Args:
        sources: {heading of a column: what it holds}, or a file or folder, or several, which get their names as
            headings.
        output: folder for `evaluation.md`, `.json` and `.parquet`, and for the structures with their verdicts.
        domain: `crystals` or `molecules`; None: what the first structure is that can be read.
        base: of crystals: the model in whose features diversity is measured; None: the shipped one.
        known: so many of the reference set, or of QM9, are a further column.
        seed: of their choice; that of `atomrl evaluate` if not given.
        overrides: `key=value` of the sections `reward` and `evaluation`, e.g. `reward.hull=hull.json`, or `threads`.
        device: `auto`, `cpu` or `cuda`.
        keep: as `atomrl evaluate --keep`.
        command: what a reader types to get the same tables.

    Raises:
        UserError: a file cannot be read, holds nothing, is of another domain, or would be written over; something is
            neither a file nor structures; a base for molecules; as `require_new_table` and `overridden`; a judge is not
            there, e.g. a hull is of another force field.
    """
    output, overrides = Path(output), listed_words(overrides)
    require_new_table(output, known)
    _require_sources(sources)
    named = sources if isinstance(sources, Mapping) else _headings(sources)
    _require_apart([*named, *([KNOWN_SET] if known else [])])
    workers = as_workers(None)
    read, found = _read(named, domain, workers)
    judged_by = domain_named(found)
    _require_kept([*named, *([KNOWN_SET] if known else [])], named.values(), output, judged_by.formats)
    config = overridden(as_trained(found, {}), overrides, sampled=False).changed(device=device)
    use_threads(config.threads)
    model = _model(base, judged_by, config)
    require_writable(output, f"--output {output}")
    kept = KeptSamples(output, "", None if keep is None else Path(keep))
    with judged_by.panel(config, model) as panel, kept.until_written(command):
        judged = _all_judged(read, named, known, seed, panel, kept)
        return compare(judged, set(), panel, None, command, output)


def _model(base: str | None, domain: Domain[Any, Any], config: Config) -> Model:
    """In whose features the diversity of crystals is measured; the shipped model if none is named.

    Raises:
        UserError: it is no model of crystals, or one is named for molecules.
    """
    if base is not None and domain.name == MOLECULES:
        raise UserError(f"--base {base} measures the diversity of crystals, and these are molecules: leave it out")
    stored = read_stored(base or config.model.backbone)
    if domain_for(stored) is not domain:
        raise UserError(f"--base {base} is not a model of {domain.name}, as these structures are: leave it out")
    model: Model = domain.load(stored, config)
    return model


def _require_sources(sources: object) -> None:
    """Refuse what is neither a file nor structures.

    Raises:
        UserError: there is such a thing.
    """
    kinds: tuple[type, ...] = (str, Path)
    given: Iterable[object] = sources if isinstance(sources, list | tuple) else [sources]
    if isinstance(sources, Mapping):
        kinds, given = (str, Path, Structures), sources.values()
    if wrong := [one for one in given if not isinstance(one, kinds)]:
        raise UserError(
            f"evaluate_structures got {type(wrong[0]).__name__}: give a file or a folder, several, or a mapping of "
            "headings to these or to Structures, e.g. {'mine': from_pymatgen([crystal])}"
        )


def _headings(paths: Sequence[Path | str] | Path | str) -> dict[str, Source]:
    """A heading for each file: its name without ending, or its path, at last with a number, where that is not enough.

    Raises:
        UserError: no file is given, or one twice.
    """
    files = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not files or len(set(files)) < len(files):
        raise UserError(f"--structures {' '.join(map(str, files))}: give one or more files or folders, each once")
    stems = [re.sub(r"(\.json)?\.\w+$", "", file.resolve().name) for file in files]
    alike = Counter(map(in_file_name, stems))
    whole = [re.sub(r"\W+", "_", str(file)).strip("_") for file in files]
    paths_alike = Counter(whole)
    longer = [f"{path}_{place}" if paths_alike[path] > 1 else path for place, path in enumerate(whole, start=1)]
    names = [stem if alike[in_file_name(stem)] == 1 else path for stem, path in zip(stems, longer, strict=True)]
    _require_apart(names)
    return dict(zip(names, files, strict=True))


def _require_apart(headings: Sequence[str]) -> None:
    """Refuse headings whose columns would be written into the same files.

    Raises:
        UserError: two of them are alike.
    """
    counts = Counter(map(in_file_name, headings))
    if alike := [heading for heading in headings if counts[in_file_name(heading)] > 1]:
        raise UserError(f"the columns {', '.join(alike)} would be written into the same files: name them otherwise")


def _require_kept(headings: Sequence[str], sources: Iterable[Source], output: Path, endings: Sequence[str]) -> None:
    """Refuse a folder in which the columns' files would take the place of what is judged.

    Args:
        headings: of the columns.
        sources: what they hold.
        output: folder for a file of each column and ending.
        endings: of these files.

    Raises:
        UserError: one of them is a source, or lies in a folder that is one.
    """
    written = [output / f"{in_file_name(heading)}.{ending}" for heading in headings for ending in endings]
    there = {path.resolve(): path for path in written if path.exists()}
    for place in (Path(source).resolve() for source in sources if not isinstance(source, Structures)):
        if lost := [path for whole, path in there.items() if place in (whole, *whole.parents)]:
            raise UserError(
                f"--output {output}: {lost[0]}, which is judged, would be written over; give another folder"
            )


def _read(sources: Mapping[str, Source], domain: str | None, workers: Workers) -> tuple[dict[str, ReadStructures], str]:
    """What each column holds, and the domain of all.

    Raises:
        UserError: as `evaluate_structures`.
    """
    if domain not in (None, CRYSTALS, MOLECULES):
        raise UserError(f"domain {domain}: must be {CRYSTALS} or {MOLECULES}")
    read: dict[str, ReadStructures] = {}
    for heading, source in sources.items():
        if isinstance(source, Structures):
            held = CRYSTALS if source.cell is not None else MOLECULES
            if held != (domain or held) or not len(source):
                raise UserError(f"{heading} holds {len(source)} {held}: give one or more {domain or held}")
            where = tuple(f"row {row}" for row in range(len(source)))
            read[heading], domain = ReadStructures(source, where, (None,) * len(source)), held
            continue
        path = Path(source)
        entries = read_entries_of(path, workers)
        domain = domain or domain_of_entries(path, entries)
        read[heading] = as_structures(path, entries, domain)
        if said := read[heading].report():
            print(f"{path}: {said}")
    if domain is None:
        raise UserError("no structures to judge: give one or more columns of them")
    return read, domain


def _all_judged(
    read: Mapping[str, ReadStructures],
    sources: Mapping[str, Source],
    known: int,
    seed: int,
    panel: Panel,
    kept: KeptSamples,
) -> dict[str, Judged]:
    """The verdicts on all columns, and on so many known structures; what cannot be judged is refused before any is."""
    for heading, part in read.items():
        with hinted(f"; they are in the column {heading}"):
            panel.require_judgeable(part.structures)
    known_set = panel.known_samples(known, seed) if known else None
    judged = {heading: _judged(part, str(sources[heading]), panel, kept) for heading, part in read.items()}
    if known_set is not None:
        judged[KNOWN_SET] = replace(panel.judge(known_set, kept), drawn=0)
    return judged


def _judged(read: ReadStructures, source: str, panel: Panel, kept: KeptSamples) -> Judged:
    """The verdict on one column; what could not be read is counted by kind."""
    judged = panel.judge(read.structures, kept)
    kinds = Counter(reason.partition(":")[0] for reason in read.reasons if reason is not None)
    metrics: Any = judged.metrics
    if kinds:
        metrics = replace(metrics, failures={"reading": dict(kinds.most_common()), **metrics.failures})
    about = {
        "source": SampleColumn(read.where, "file and entry"),
        "reading_reason": SampleColumn(read.reasons, "why it could not be read"),
    }
    return replace(judged, metrics=metrics, drawn=0, source=source, about=about)
