"""The command line: train, pretrain, sample, evaluate. A user's mistake is one line and exit code 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from atomrl.errors import NonFiniteLossError, UserError


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `atomrl`."""
    parser = argparse.ArgumentParser(prog="atomrl", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="post-train a backbone (default: the demo's experiment)")
    train.add_argument("--config-name", default="demo", help="a YAML of the package's conf/, without its ending")
    train.add_argument("--config-dir", type=Path, help="take the YAML from this folder instead")
    train.add_argument("overrides", nargs="*", metavar="key=value", help="override the YAML, as Hydra writes it")
    sys.exit(run(parser.parse_args(arguments)))


def run(options: argparse.Namespace) -> int:
    """Carry out a command; the exit code."""
    try:
        _train(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except NonFiniteLossError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _train(options: argparse.Namespace) -> None:
    """`atomrl train`."""
    from atomrl.config import load_config
    from atomrl.training.run import train

    config = load_config(options.config_name, options.overrides, options.config_dir)
    train(config, options.config_name)
