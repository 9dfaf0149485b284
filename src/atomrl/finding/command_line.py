"""The words of `atomrl list`, `atomrl keys` and `atomrl doctor`; what they do is imported when they are asked."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any


def add_finding(commands: Any) -> None:
    """Commands that say what there is."""
    listed = commands.add_parser("list", help="list configurations, backbones, rewards, force fields, objectives")
    listed.add_argument("kinds", nargs="*", metavar="KIND", help="kinds to list, e.g. rewards; all if not given")
    keys = commands.add_parser("keys", help="list the keys that can be set, with type, default, unit and meaning")
    keys.add_argument(
        "prefix",
        nargs="?",
        default="",
        help="beginning of the keys to list, e.g. train. or reward.shaping; all if not given",
    )
    keys.add_argument(
        "--of",
        metavar="COMMAND",
        help="which keys: those of atomrl train for molecules or crystals, or those of atomrl pretrain for edm, "
        "regressor, vae, ldm or predictor; if not given, those of atomrl train for both",
    )
    commands.add_parser("doctor", help="check the installation: versions, GPU, extras, cores, workers, xTB")


def keys_of_pretraining(words: Sequence[str]) -> str:
    """The keys of what `atomrl pretrain` is asked about."""
    asked = next((word for word in words if not word.startswith("-")), None)
    if asked is None:
        return "\natomrl pretrain edm --help, or another of these, lists its keys\n"
    from atomrl.finding.keys import keys_text  # noqa: PLC0415 - it takes torch, and seconds

    return f"\nkeys of atomrl pretrain {asked}, with type and default:\n\n{keys_text('', asked)}"


def _list(options: argparse.Namespace) -> None:
    from atomrl.finding.listing import list_command  # noqa: PLC0415

    list_command(options.kinds)


def _keys(options: argparse.Namespace) -> None:
    from atomrl.finding.keys import keys_command  # noqa: PLC0415

    keys_command(options.prefix, options.of)


def _doctor(_: argparse.Namespace) -> None:
    from atomrl.finding.doctor import doctor_command  # noqa: PLC0415

    doctor_command()


FINDING: dict[str, Callable[[argparse.Namespace], None]] = {"list": _list, "keys": _keys, "doctor": _doctor}
"""What each of these commands does."""
