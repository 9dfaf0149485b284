"""`atomrl data prototypes build | finish | check | hull`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from atomrl.util.command_parser import CommandParser
from atomrl.util.errors import UserError
from atomrl.util.optional_imports import extra

# Imports stand inside the commands: pymatgen, torch and chgnet take ten seconds, `--help` should not.


def data_command(arguments: Sequence[str]) -> None:
    """Run one step of making the crystal set.

    Args:
        arguments: the words after `atomrl data prototypes`.

    Raises:
        UserError: an option, or a folder, is wrong.
    """
    parser = CommandParser(prog="atomrl data prototypes", description="make the crystal set that ships")
    steps = parser.add_subparsers(dest="step", required=True)
    build = steps.add_parser("build", help="relax candidates with CHGNet; resumes where it stopped")
    build.add_argument("--limit", type=int, default=12_000, help="most candidates, failed ones included; default 12000")
    build.add_argument("--workers", type=int, default=1, help="processes of one thread each; default 1")
    build.add_argument("--minutes", type=float, help="stop after so many minutes; if not given, at the end")
    build.add_argument("--seed", type=int, default=0, help="seed of the order of the candidates; default 0")
    finish = steps.add_parser("finish", help="drop duplicates and implausible ones, compute the hull, compress")
    finish.add_argument("--output", type=Path, help="folder of the finished set (default: that of --save)")
    finish.add_argument("--split-seed", type=int, default=0, help="seed that deals formulas out to splits; default 0")
    check = steps.add_parser("check", help="compare formation energies and lattice constants with experiment")
    hull = steps.add_parser("hull", help="compute the hull of the finished set with another force field; resumes too")
    hull.add_argument("--judge", choices=["sevennet"], required=True, help="the other force field, an extra")
    hull.add_argument("--folder", type=Path, help="folder of the finished set (default: the one that ships)")
    hull.add_argument(
        "--output", type=Path, help="folder of the new hull (default: that of --folder, else that of --save)"
    )
    hull.add_argument("--workers", type=int, default=1, help="processes of one thread each; 0: this process; default 1")
    for step in (build, finish, check, hull):
        step.add_argument(
            "--save",
            type=Path,
            default=Path("runs/prototypes"),
            help="folder of the build and of energies so far; default runs/prototypes",
        )
    options = parser.parse_args(arguments)
    _check_ranges(options)
    _STEPS[options.step](options)


def _check_ranges(options: argparse.Namespace) -> None:
    """Raise UserError for numbers that cannot be."""
    given = vars(options)
    for name, low in (("limit", 1), ("workers", 1 if options.step == "build" else 0), ("seed", 0)):
        if given.get(name, low) < low:
            raise UserError(f"--{name}={given[name]}: must be at least {low}")
    minutes = given.get("minutes")
    if minutes is not None and not minutes > 0:
        raise UserError(f"--minutes={minutes}: must be positive")


def _build(options: argparse.Namespace) -> None:
    with extra("crystals"):
        from tools.prototypes.build import BuildOptions, build  # noqa: PLC0415
        from tools.prototypes.candidates import candidates  # noqa: PLC0415
        from tools.prototypes.relax import MODEL, model_hash  # noqa: PLC0415

    queue = candidates(options.seed, options.limit)
    settings = {"seed": options.seed, "model": MODEL, "model_hash": model_hash()}
    build(queue, BuildOptions(options.save, options.workers, options.minutes), settings)


def _finish(options: argparse.Namespace) -> None:
    with extra("crystals"):
        from tools.prototypes.finish import finish  # noqa: PLC0415

    finish(options.save, options.output or options.save, options.split_seed)


def _check(options: argparse.Namespace) -> None:
    with extra("crystals"):
        from tools.prototypes.check import check  # noqa: PLC0415

    check(options.save)


def _hull(options: argparse.Namespace) -> None:
    with extra("crystals"):
        from atomrl.data.prototype_set import ASSETS  # noqa: PLC0415
        from atomrl.force_fields.sevennet import NAME, SevenNetForceField  # noqa: PLC0415
        from tools.prototypes.rejudge import rejudge  # noqa: PLC0415

    folder = options.folder or ASSETS
    with SevenNetForceField(workers=options.workers) as judge:
        rejudge(folder, options.save, options.output or options.folder or options.save, judge, NAME)


_STEPS = {"build": _build, "finish": _finish, "check": _check, "hull": _hull}
