"""The command line. A user's mistake is one line and exit code 2."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from atomrl.commands.options import parser
from atomrl.finding.command_line import FINDING
from atomrl.util.errors import NonFiniteLossError, RankError, UserCodeError, UserError
from atomrl.util.glibc_malloc import keep_freed_memory
from atomrl.util.processes import ALONE, check_one_process, launched, ranks_hidden

if TYPE_CHECKING:
    from atomrl.config import Config

LATER = 3.0
"""Seconds that a process lets another one end first, whose error it is: torchrun names the first, and ends the rest."""

TRACEBACK = "ATOMRL_TRACEBACK"
"""Variable that, set to anything, has the whole traceback of the user's code printed."""

BUILDER = "tools.prototypes.command"
"""What makes the crystal set that ships; in the repository alone."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `atomrl`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(words, argparse.Namespace(words=words))
    options.launch = ALONE

    def run() -> None:
        if options.command in {"train", "resume"}:
            options.launch = launched()
        if options.command == "pretrain":
            check_one_process()
        with ranks_hidden():
            _COMMANDS[options.command](options)

    _ending(run, options)


def _ending(command: Callable[[], None], options: argparse.Namespace) -> None:
    """Run a command; a mistake, a loss that is not finite and Ctrl-C are one line and an exit code each.

    Args:
        command: without arguments.
        options: with `launch`, which process this is.
    """
    keep_freed_memory()
    try:
        command()
    except UserError as error:
        _tell(error)
        _exit(2, options)
    except NonFiniteLossError as error:
        print(f"error: {error}", file=sys.stderr)
        _exit(1, options)
    except RankError as error:
        if not error.quiet:
            print(f"error: {error}", file=sys.stderr, flush=True)
        time.sleep(LATER * error.repeats)
        _exit(error.code, options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        _exit(130, options)


def _tell(error: UserError) -> None:
    """Print a mistake; of code of the user's also their own line, and where the whole traceback is."""
    print(f"error: {error}", *error.notes, sep="\n", file=sys.stderr)
    if not isinstance(error, UserCodeError):
        return
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error.error)
    elif error.traceback_file is not None:
        print(f"the whole traceback: {error.traceback_file}", file=sys.stderr)
    else:
        print(f"with {TRACEBACK}=1 the whole traceback is printed", file=sys.stderr)


def _exit(code: int, options: argparse.Namespace) -> NoReturn:
    """End with a code. One of several processes does not wait for torch, which may still wait for another."""
    if options.launch.size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def train_main() -> None:
    """`python run_elign.py ...` is `atomrl train ...`."""
    main(["train", *sys.argv[1:]])


def rollout_main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `eval_elign_rollout.py`."""
    from atomrl.commands.rollout import rollout_command  # noqa: PLC0415

    words = sys.argv[1:] if arguments is None else arguments
    _ending(lambda: rollout_command(words), argparse.Namespace(launch=ALONE))


def metrics_main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `compute_elign_metrics.py`."""
    from atomrl.commands.metrics import metrics_command  # noqa: PLC0415

    words = sys.argv[1:] if arguments is None else arguments
    _ending(lambda: metrics_command(words), argparse.Namespace(launch=ALONE))


# Imports stand inside the commands, so that `atomrl --help` and a mistyped option answer at once.


def _train(options: argparse.Namespace) -> None:
    if options.print_config:
        _print_config(options)
        return
    # A mistyped key is said before torch is imported; of several processes `train_by_words` has one say it.
    config = _config_of(options) if options.launch.size == 1 else None
    from atomrl.library.training import Words, train_by_words  # noqa: PLC0415

    words = Words(options.config_name, options.overrides, options.config_dir)
    train_by_words(words, shlex.join(["atomrl", *options.words]), options.launch, config=config)


def _config_of(options: argparse.Namespace) -> Config:
    """What the words of `atomrl train` say, without torch."""
    from atomrl.config import load_config  # noqa: PLC0415
    from atomrl.config.naming import named_yaml  # noqa: PLC0415

    name, overrides = named_yaml(options.overrides, options.config_name, options.config_dir)
    return load_config(name, overrides, options.config_dir)


def _print_config(options: argparse.Namespace) -> None:
    from atomrl.config import to_yaml  # noqa: PLC0415

    print(to_yaml(_config_of(options)), end="")


def _resume(options: argparse.Namespace) -> None:
    from atomrl.library.resuming import Continuation  # noqa: PLC0415

    continued = Continuation(options.run, options.overrides, options.trust_code, "--trust-code")
    continued.train(shlex.join(["atomrl", *options.words]), options.launch)


def _sample(options: argparse.Namespace) -> None:
    from atomrl.commands.samples import sample_command  # noqa: PLC0415

    sample_command(options)


def _evaluate(options: argparse.Namespace) -> None:
    from atomrl.commands.samples import evaluate_command  # noqa: PLC0415

    evaluate_command(options)


def _report(options: argparse.Namespace) -> None:
    from atomrl.report.report import report_command  # noqa: PLC0415

    report_command(options)


def _pretrain(options: argparse.Namespace) -> None:

    if options.what == "edm":
        from atomrl.pretraining.edm_run import pretrain_edm  # noqa: PLC0415

        pretrain_edm(options.overrides)
        return
    if options.what == "regressor":
        from atomrl.pretraining.regressor_run import pretrain_regressor  # noqa: PLC0415

        pretrain_regressor(options.overrides)
        return
    if options.what == "predictor":
        from atomrl.pretraining.predictor_run import pretrain_predictor  # noqa: PLC0415

        pretrain_predictor(options.overrides)
        return
    from atomrl.pretraining.crystal_run import pretrain_ldm, pretrain_vae  # noqa: PLC0415

    {"vae": pretrain_vae, "ldm": pretrain_ldm}[options.what](options.overrides)


def _import(options: argparse.Namespace) -> None:
    from atomrl.util.files import require_writable  # noqa: PLC0415

    for option, kind in (("properties", "edm"), ("vae", "chemeleon2")):
        if getattr(options, option) and options.what != kind:
            raise UserError(f"--{option} is for `atomrl import {kind}` alone: leave it out")
    if (options.output / "model.json").exists():
        raise UserError(f"--output {options.output} holds a model: give another folder, or remove this one")
    require_writable(options.output, f"--output {options.output}")
    made = {"edm": _import_edm, "chemeleon2": _import_chemeleon2}[options.what](options)
    print(f"{made} -> {options.output}")


def _import_edm(options: argparse.Namespace) -> str:
    """Returns what was imported, in words."""
    from atomrl.checkpoints.backbone import import_edm  # noqa: PLC0415

    known = None
    if options.properties:
        from atomrl.checkpoints.stored import read_stored  # noqa: PLC0415
        from atomrl.data.qm9_properties import training_properties  # noqa: PLC0415

        names = read_stored(str(options.where)).card.get("conditioning", [])
        if not names:
            raise UserError(f"{options.where} holds a model that is not conditional: leave out --properties")
        known = training_properties(names)
    made = import_edm(options.where, options.output, options.sizes, known).network.config
    return f"backbone of {', '.join(made.elements)}, {made.hidden} features, {made.layers} layers"


def _import_chemeleon2(options: argparse.Namespace) -> str:
    """Returns what was imported, in words."""
    from atomrl.checkpoints.import_crystal import import_crystal  # noqa: PLC0415

    return import_crystal(options.where, options.output, options.vae, options.sizes)


def _data(options: argparse.Namespace) -> None:
    if options.what == "split":
        from atomrl.data.formula_split import split_command  # noqa: PLC0415

        split_command(options.rest)
        return
    if options.what == "reference":
        from atomrl.reference.command import reference_command  # noqa: PLC0415

        reference_command(options.rest)
        return
    try:
        builder = import_module(BUILDER)
    except ModuleNotFoundError as error:
        if not BUILDER.startswith(str(error.name)):
            raise
        raise UserError(
            "atomrl data prototypes makes the crystal set anew; its code is in the repository and not in the installed "
            "package: run it in a checkout, after `make venv`"
        ) from error
    builder.data_command(options.rest)


def _push(options: argparse.Namespace) -> None:
    from atomrl.sharing.command import push_command  # noqa: PLC0415

    push_command(options)


def _check_reward(options: argparse.Namespace) -> None:
    from atomrl.commands.checks import check_reward_command  # noqa: PLC0415

    check_reward_command(options)


def _check_force_field(options: argparse.Namespace) -> None:
    from atomrl.commands.checks import check_force_field_command  # noqa: PLC0415

    check_force_field_command(options)


def _check_backbone(options: argparse.Namespace) -> None:
    from atomrl.commands.checks import check_backbone_command  # noqa: PLC0415

    check_backbone_command(options)


_COMMANDS = {
    "train": _train,
    "resume": _resume,
    "sample": _sample,
    "evaluate": _evaluate,
    "report": _report,
    "pretrain": _pretrain,
    "import": _import,
    "data": _data,
    "push": _push,
    "check-reward": _check_reward,
    "check-force-field": _check_force_field,
    "check-backbone": _check_backbone,
    **FINDING,
}
