"""PoseBusters' checks of generated molecules: whether bonds, angles, rings and contacts are those of real molecules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray

from atomrl.chemistry.rdkit import PERCEIVED, PROTOCOL, bonded_molecules
from atomrl.core.records import Structures
from atomrl.evaluation.definition import Definition, Scorecard
from atomrl.evaluation.kept_samples import KeptSamples, Stored
from atomrl.evaluation.molecules import MoleculeScorecard
from atomrl.measures.bootstrap import RESAMPLES, proportion
from atomrl.structures.molecules import split
from atomrl.util.errors import UserError
from atomrl.util.progress import bar
from atomrl.workers.executor import PASSING, Executor, Outcome, Workers

TASK = "atomrl.chemistry.posebusters_task:bust"
PERCEIVING = "atomrl.chemistry.posebusters_task:bust_perceived"
"""Of molecules with the bonds of the table; and with those that RDKit finds, under the profile `PERCEIVED`."""
TIMEOUT = 120.0
"""Seconds per molecule; the first one of a worker imports pandas."""

VERSION = 2
"""Of what `TASK` asks of PoseBusters and keeps; verdicts of another one are made again."""

LOT = 50
"""Molecules that are kept together: seconds of work, all that a stop can cost."""

CHECKS = (
    "sanitization",
    "inchi_convertible",
    "all_atoms_connected",
    "no_radicals",
    "bond_lengths",
    "bond_angles",
    "internal_steric_clash",
    "aromatic_ring_flatness",
    "non-aromatic_ring_non-flatness",
    "double_bond_flatness",
)
"""Of PoseBusters' configuration `mol_fast`."""

METRICS: Mapping[str, Definition] = {
    "all_checks": Definition("passes all checks", "%", "samples", "higher"),
    **{name: Definition(name.replace("_", " "), "%", "samples", "higher") for name in CHECKS},
}
"""In the order of the table."""


@dataclass(frozen=True)
class CheckedPoses:
    """PoseBusters' verdicts, B molecules.

    Attributes:
        passed: {metric: (B,) bool}, as `METRICS`; a molecule without a verdict passes nothing, and a check that could
            not be made, as most of one that RDKit cannot sanitise, is not passed.
        reasons: why there is no verdict; None where there is.
    """

    passed: Mapping[str, NDArray[np.bool_]]
    reasons: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.reasons)


def pose_checker(workers: Workers, profile: str = PROTOCOL) -> Executor:
    """Who runs the checks, of molecules whose bonds are those of a profile.

    Raises:
        UserError: PoseBusters is not installed.
    """
    if find_spec("posebusters") is None:
        raise UserError("evaluation.posebusters needs the package posebusters: pip install 'atomrl[eval]'")
    return workers.executor(PERCEIVING if profile == PERCEIVED else TASK, TIMEOUT)


def check_poses(
    structures: Structures, executor: Executor, kept: KeptSamples | None = None, profile: str = PROTOCOL
) -> list[Outcome]:
    """PoseBusters' verdicts on B molecules, in order: {check: passed}.

    Args:
        structures: the molecules, on the CPU.
        executor: of `pose_checker`.
        kept: of an evaluation that was stopped; lots that are new are added. A lot in which a worker was lost is not
            kept, but tried again.
        profile: of the executor.
    """
    packages = ", ".join(f"{name} {version(name)}" for name in ("posebusters", "rdkit"))
    said = f"{packages}; task {VERSION}; in lots of {LOT}" + (f"; {profile}" if profile == PERCEIVED else "")
    before = None if kept is None else kept.made_from(structures, said)
    found: list[Outcome] = []
    with bar(range(0), "PoseBusters", len(structures)) as progress:
        for index, rows in enumerate(torch.arange(len(structures)).split(LOT)):
            fresh = partial(_verdicts, structures[rows], executor, profile)
            stored = fresh() if before is None else before.get_stored(index, fresh, ())
            found += [Outcome(*note) for note in stored.notes]
            progress.update(len(rows))
    return found


def _verdicts(structures: Structures, executor: Executor, profile: str) -> Stored:
    """Of one lot, as a file holds them: no tensor, and (verdict, reason) of each molecule."""
    geometries = split(structures)
    items: Sequence[object] = geometries
    if profile != PERCEIVED:
        positions = [geometry.positions for geometry in geometries]
        items = list(zip(bonded_molecules(structures), positions, strict=True))
    outcomes = executor.map(items)
    lasting = not {outcome.reason for outcome in outcomes} & PASSING
    return Stored({}, [(outcome.value, outcome.reason) for outcome in outcomes], lasting)


def by_pose_checks(
    metrics: MoleculeScorecard, outcomes: Sequence[Outcome], how: str, seed: int = 0, resamples: int = RESAMPLES
) -> Scorecard[CheckedPoses]:
    """The verdict of the checks.

    Args:
        metrics: the usual verdict on the same B molecules.
        outcomes: of `check_poses`; a molecule without one passes nothing.
        how: which molecules, in words.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    found = [{} if outcome.reason is not None else outcome.value for outcome in outcomes]
    passed: dict[str, NDArray[np.bool_]] = {
        name: np.array([bool(one.get(name, False)) for one in found]) for name in CHECKS
    }
    together: NDArray[np.bool_] = np.logical_and.reduce(list(passed.values()))
    samples = CheckedPoses({"all_checks": together, **passed}, tuple(outcome.reason for outcome in outcomes))
    summary = {name: proportion(values, seed, resamples) for name, values in samples.passed.items()}
    reasons = Counter(reason for reason in samples.reasons if reason is not None)
    failures = {"posebusters": dict(reasons)}
    return metrics.again(samples, METRICS, summary, failures, geometry=how, evaluator="PoseBusters")
