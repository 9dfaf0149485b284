"""A set of known molecules out of the user's file of SMILES, or of what a pre-training wrote beside its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rdkit import rdBase

from atomrl.chemistry.rdkit import PROTOCOL, SINGLE_BONDS
from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.util.errors import UserError, first_line
from atomrl.util.plain_pickle import read_plain
from atomrl.workers.executor import Workers
from atomrl.workers.local import as_workers

TASK, SINGLE_TASK = "atomrl.chemistry.rdkit_task:rename", "atomrl.chemistry.rdkit_task:rename_single"
PICKLES = (".pickle", ".pkl")
KNOWN_FILE = "train_smiles.safetensors"
"""Beside a backbone of the user's own molecules: what these are called by `PROTOCOL`; see `known_file`."""
SHOWN = 3
"""Unreadable lines that a message names."""


def known_file(profile: str) -> str:
    """Of such a folder: the file of the names that a profile gives."""
    return KNOWN_FILE if profile == PROTOCOL else KNOWN_FILE.replace(".", f"-{profile}.")


def known_under(profile: str, path: Path | None, workers: Workers | int | None = None) -> TrainingSmiles | None:
    """What samples that a profile names are compared with; arguments and errors as of `read_known`.

    None: nothing, since no file is given and the set that ships is named by `edm-2022` alone.
    """
    return None if path is None and profile != PROTOCOL else read_known(path, workers, profile=profile)


def read_known(
    path: Path | None, workers: Workers | int | None = None, timeout: float = 10.0, profile: str = PROTOCOL
) -> TrainingSmiles:
    """The known molecules of a file of SMILES, each by its largest fragment with all hydrogens written out.

    Args:
        path: text, a SMILES at the beginning of each line, or a pickle of a list or set of them; the folder of a
            backbone that was trained on molecules of the user's own, or a `known_file` in it; None: the set that
            ships, of QM9's training molecules.
        workers: for RDKit.
        timeout: seconds per SMILES.
        profile: by which samples are named.

    Raises:
        UserError: the file cannot be read, or holds something else, or names of another profile.
    """
    if path is None:
        return TrainingSmiles.load()
    if path.is_dir() or path.suffix == ".safetensors":
        file = path / known_file(profile) if path.is_dir() else path
        if path.is_dir() and not file.is_file():  # of an earlier version
            file = path / KNOWN_FILE
        known = replace(TrainingSmiles.load(file), source=str(path))
        if known.protocol != profile:
            raise UserError(
                f"{file} holds names of profile {known.protocol}, not of {profile}: give a text file of SMILES"
            )
        return known
    given = _from_pickle(path) if path.suffix in PICKLES else _from_text(path)
    executor = as_workers(workers).executor(SINGLE_TASK if profile == SINGLE_BONDS else TASK, timeout)
    try:
        outcomes = executor.map(given)
    finally:
        executor.close()
    bad = [text for text, outcome in zip(given, outcomes, strict=True) if outcome.reason is not None]
    if bad:
        shown = ", ".join(bad[:SHOWN]) + (", ..." if len(bad) > SHOWN else "")
        raise UserError(f"{path}: RDKit cannot read {len(bad)} of {len(given)} SMILES ({shown}): remove them")
    names = [str(outcome.value) for outcome in outcomes]
    return TrainingSmiles.of(names, len(names), profile, rdBase.rdkitVersion, path.name)


def _from_text(path: Path) -> list[str]:
    """The first word of each line."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read as text ({first_line(error)}): give a file with one SMILES per line"
        ) from error
    found = [line.split()[0] for line in lines if line.strip()]
    if not found:
        raise UserError(f"{path} holds no SMILES: give a file with one per line")
    return found


def _from_pickle(path: Path) -> list[str]:
    """A list, tuple, set or dictionary's keys of texts; None among them, for an invalid molecule, is left out."""
    held = read_plain(path, "pickle of plain SMILES", ": give a file with one SMILES per line")
    entries = list(held) if isinstance(held, list | tuple | set | frozenset | dict) else []
    if not entries or not all(entry is None or isinstance(entry, str) for entry in entries):
        raise UserError(f"{path} holds no list of SMILES: give a file with one SMILES per line")
    return [entry for entry in entries if entry is not None]
