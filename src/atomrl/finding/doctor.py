"""`atomrl doctor`: tries what is installed; each line says that it is well, or what to do."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import atomrl
from atomrl.core.records import Structures
from atomrl.finding.extras import how_to_install, missing_packages, packages_of_extras, version_of
from atomrl.force_fields.xtb import XTBForceField
from atomrl.util.cpu_count import cores
from atomrl.util.errors import UserError

PACKAGES = ("torch", "lightning", "hydra-core", "pydantic", "rdkit", "ase", "tblite", "numpy", "scipy", "pyarrow")

WATER = ((0.0, 0.0, 0.119), (0.0, 0.763, -0.477), (0.0, -0.763, -0.477))
"""Positions of O, H, H, Å."""

WATER_ENERGY, TOLERANCE = -138.0, 0.5
"""GFN2-xTB's total energy of it, -5.07 Hartree, and how far another version may be off; eV."""

TIMEOUT = 60.0
"""Seconds that xTB may take for it."""

Line = tuple[bool, str]
"""Whether something is well, and what is to be said of it."""


def doctor_command() -> None:
    """Print a line for each thing that is tried.

    Raises:
        UserError: something that every user needs is not well.
    """
    checks: tuple[Callable[[], Iterator[Line]], ...] = (_versions, _extras, _gpu, _cores, _xtb)
    wrong = 0
    for check in checks:
        for well, said in check():
            print(f"{'ok  ' if well else 'FIX '}  {said}", flush=True)
            wrong += not well
    if wrong:
        raise UserError(f"{wrong} of these must be fixed: the lines that begin with FIX say how")


def _versions() -> Iterator[Line]:
    """Of the package, of Python and of what every run needs."""
    yield True, f"atomrl {version_of('atomrl')} in {Path(atomrl.__file__).parent}"
    yield True, f"Python {platform.python_version()} in {sys.prefix}, {platform.system()} on {platform.machine()}"
    found = {package: version_of(package) for package in PACKAGES}
    yield True, ", ".join(f"{package} {number}" for package, number in found.items() if number)
    for package in (package for package, number in found.items() if number is None):
        yield False, f"{package} is not installed: pip install --upgrade atomrl brings it"


def _extras() -> Iterator[Line]:
    """Each of them; one that is not installed is no fault."""
    for extra, packages in packages_of_extras().items():
        missing = missing_packages(extra)
        there = ", ".join(f"{package} {version_of(package)}" for package in packages if package not in missing)
        if missing:
            yield (
                True,
                f"extra {extra}: not installed, lacks {', '.join(missing)}; if you need it: {how_to_install(extra)}",
            )
        else:
            yield True, f"extra {extra}: {there}"


def _gpu() -> Iterator[Line]:
    """What torch sees, and whether it computes."""
    if not torch.cuda.is_available():
        built = f"a build for CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
        yield True, f"no GPU: torch sees none ({built}), and everything runs on the CPU"
        return
    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        total = torch.ones(8, device=f"cuda:{number}").sum().item()
        yield (
            total == 8.0,
            f"GPU {number}: {found.name}, {found.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}",
        )


def _cores() -> Iterator[Line]:
    """How many this process may use, and what torch takes of them."""
    usable, whole = cores(), os.cpu_count() or 1
    yield True, f"{usable} of {whole} cores may be used; torch takes {torch.get_num_threads()} threads"
    if torch.get_num_threads() > usable:
        yield False, f"torch would take more threads than there are cores: export OMP_NUM_THREADS={usable}"


def _xtb() -> Iterator[Line]:
    """A worker process, and one call of xTB in it: an energy that is known."""
    water = Structures(
        torch.tensor([[8, 1, 1]]), torch.tensor([WATER], dtype=torch.float32), torch.ones(1, 3, dtype=torch.bool)
    )
    started = time.monotonic()
    force_field = XTBForceField(1, TIMEOUT)
    try:
        [found] = force_field.evaluate(water)
    except UserError as error:
        yield False, f"a worker process did not start: {error}"
        return
    finally:
        force_field.close()
    seconds, remedy = time.monotonic() - started, "pip install --force-reinstall tblite"
    if found.reason is not None:
        yield False, f"xTB in a worker process has no energy of water, {found.reason}: {remedy}"
    elif abs(found.energy - WATER_ENERGY) > TOLERANCE:
        yield False, f"xTB gives water {found.energy:.2f} eV and not {WATER_ENERGY} eV: {remedy}"
    else:
        yield (
            True,
            f"a worker process and xTB: water has {found.energy:.2f} eV, as it must; {seconds:.1f} s with the start",
        )
