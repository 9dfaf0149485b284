"""The command line. A user's mistake is one line and exit code 2."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from atomrl.command_parser import CommandParser
from atomrl.finding.command_line import FINDING, add_finding, keys_of_pretraining
from atomrl.util.errors import NonFiniteLossError, RankError, UserError
from atomrl.util.glibc_malloc import keep_freed_memory
from atomrl.util.processes import ALONE, check_one_process, launched, ranks_hidden

LATER = 3.0
"""Seconds that a process lets another one end first, whose error it is: torchrun names the first, and ends the rest."""

BUILDER = "tools.prototypes.command"
"""What makes the crystal set that ships; in the repository alone."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `atomrl`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words, argparse.Namespace(words=words))
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
        print(f"error: {error}", file=sys.stderr)
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
    from atomrl.rollout_command import rollout_command  # noqa: PLC0415

    words = sys.argv[1:] if arguments is None else arguments
    _ending(lambda: rollout_command(words), argparse.Namespace(launch=ALONE))


def metrics_main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `compute_elign_metrics.py`."""
    from atomrl.metrics_command import metrics_command  # noqa: PLC0415

    words = sys.argv[1:] if arguments is None else arguments
    _ending(lambda: metrics_command(words), argparse.Namespace(launch=ALONE))


def _parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = CommandParser(prog="atomrl", description="RL post-training of atomistic diffusion models")
    parser.add_argument("--version", action="version", version=f"atomrl {version('atomrl')}")
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="post-train a backbone (default: the demo's experiment)")
    train.add_argument("--config-name", help="a YAML of the package's conf/, without its ending; default demo")
    train.add_argument("--config-dir", type=Path, help="take the YAML from this folder instead")
    train.add_argument(
        "--print-config", action="store_true", help="print the whole configuration that these words make, and end"
    )
    train.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="override the YAML, as Hydra writes it; experiment=prototypes/rl_dng takes that YAML of conf/experiment",
    )

    _add_resume(commands)
    _add_sample(commands)
    _add_evaluate(commands)
    _add_makers(commands)
    _add_checks(commands)
    add_finding(commands)
    return parser


def _add_resume(commands: Any) -> None:
    """`atomrl resume`."""
    resume = commands.add_parser("resume", help="continue a run that was stopped, as its own config.yaml says")
    resume.add_argument("run", type=Path, metavar="RUN", help="run directory, or its checkpoint_latest.pth")
    resume.add_argument(
        "--trust-code", action="store_true", help="run code that the run's config.yaml names: a reward of yours"
    )
    resume.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="how long, and where: e.g. dataloader.epoches=200, max_time_hours=8, reward.workers=4",
    )


def _add_sample(commands: Any) -> None:
    """`atomrl sample`."""
    sample = commands.add_parser("sample", help="draw molecules or crystals from a model")
    _sampling(sample, "10")
    sample.add_argument("--backbone", help="shipped name (atomrl list backbones), run directory, folder or checkpoint")
    sample.add_argument(
        "--best-of", type=int, default=0, metavar="N", help="draw N for each and keep the best by a reward"
    )
    sample.add_argument(
        "--steer",
        type=int,
        default=0,
        metavar="N",
        help="walk with N particles for each, resampled by the reward of z0_pred",
    )
    sample.add_argument(
        "--reject",
        type=int,
        default=0,
        metavar="N",
        help="draw again, up to N times, what is no stable molecule or no sound cell; what never was is left out",
    )
    sample.add_argument(
        "--sizes", type=int, nargs="+", default=[], metavar="ATOMS", help="draw these numbers of atoms, equally often"
    )
    sample.add_argument(
        "--context",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="ask a conditional model for these values, e.g. alpha=75.0 (Bohr^3) or chemical_system=Li-O; it draws "
        "what is not given",
    )
    sample.add_argument(
        "--compositions",
        nargs="+",
        default=[],
        metavar="FORMULA",
        help="crystals of each of these formulas, e.g. SrTiO3 NaCl, by a model that is conditioned on composition; "
        "-n of each",
    )
    sample.add_argument(
        "--formula-units",
        type=int,
        nargs="+",
        default=[],
        metavar="Z",
        help="of a cell, with --compositions; by default as numbers of atoms are distributed in the training set",
    )
    sample.add_argument(
        "--tries", type=int, default=20, metavar="N", help="walks for each sample of --compositions, at most"
    )
    sample.add_argument("--config-name", help="YAML whose reward chooses; the demo's of the domain if not given")
    sample.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="of the section model, e.g. model.guidance_scale=3, or of the reward that chooses, e.g. "
        "reward.stability_weight=2",
    )
    sample.add_argument(
        "--output", type=Path, help="an .extxyz, .sdf (molecules) or .cif (crystals) file; default samples.extxyz"
    )


def _add_evaluate(commands: Any) -> None:
    """`atomrl evaluate`."""
    evaluate = commands.add_parser("evaluate", help="judge a base and a trained model on fresh samples")
    _sampling(evaluate, "1000")
    evaluate.add_argument(
        "--structures",
        nargs="+",
        metavar="FILE",
        help="judge these in place of a model's samples: .cif, .extxyz, .json.gz, .sdf files or folders, a column each",
    )
    evaluate.add_argument(
        "--domain", choices=["crystals", "molecules"], help="what --structures holds; the first of them says it"
    )
    evaluate.add_argument("--base", help="shipped name, run directory, folder or checkpoint")
    evaluate.add_argument(
        "--trained",
        type=Path,
        help="run directory or checkpoint, or a model as for --base; leave out to judge the base alone",
    )
    evaluate.add_argument(
        "--trust-code", action="store_true", help="run code that the trained run's config.yaml names: a reward of yours"
    )
    evaluate.add_argument("--best-of", type=int, default=0, help="add best-of-N samples of the base as a control")
    evaluate.add_argument(
        "--known",
        type=int,
        default=0,
        metavar="N",
        help="add N of the set that novelty is counted against: QM9, or the crystals of reward.reference_dataset",
    )
    evaluate.add_argument(
        "--reject",
        type=int,
        default=0,
        metavar="N",
        help="add a control without scoring: draw again, up to N times, what is no stable molecule or no sound cell",
    )
    evaluate.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="of the sections reward, evaluation and model, other than the run's, e.g. evaluation.relaxed=200",
    )
    evaluate.add_argument("--output", type=Path, default=Path("evaluation"), help="folder for tables and samples")
    evaluate.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="what is sampled and relaxed stays there, and other evaluations with this option take it from there; "
        "by default it is in the output folder, until the tables are written",
    )


def _add_makers(commands: Any) -> None:
    """Commands that make models and sets."""
    pretrain = commands.add_parser("pretrain", help="pre-train a backbone or a property predictor")
    pretrain.add_argument(
        "what",
        choices=["edm", "regressor", "vae", "ldm", "predictor"],
        help="molecules: edm; a property of them: regressor; crystals: vae, then ldm; a property of them: predictor",
    )
    pretrain.add_argument("overrides", nargs="*", metavar="key=value", help="options of the run, its train and model")
    pretrain.more_help = keys_of_pretraining

    imported = commands.add_parser("import", help="make a model's folder of published weights")
    imported.add_argument(
        "what",
        choices=["edm", "chemeleon2"],
        help="molecules: args.pickle and generative_model_ema.npy of EDM; crystals: a checkpoint of a VAE, a latent "
        "diffusion model or a predictor",
    )
    imported.add_argument("where", type=Path, help="edm: the folder with these two files; chemeleon2: the checkpoint")
    imported.add_argument(
        "--sizes",
        type=Path,
        help="JSON, {atoms: count} of the training set; if not given, as published for QM9, GEOM-Drugs or MP-20",
    )
    imported.add_argument(
        "--properties",
        action="store_true",
        help="of a conditional EDM: add how the values of its properties are distributed in QM9 (extra data)",
    )
    imported.add_argument(
        "--vae",
        type=Path,
        help="chemeleon2: the VAE of a diffusion model that does not hold it, a checkpoint or a folder",
    )
    imported.add_argument("--output", type=Path, required=True, help="folder for the model")

    data = commands.add_parser("data", help="make a data set")
    data.add_argument(
        "what",
        choices=["prototypes", "reference", "split"],
        help="the crystal set that ships; reference set and hull of known crystals; CSV files split by formula",
    )
    data.add_argument(
        "rest", nargs=argparse.REMAINDER, help="of prototypes: build, finish, check or hull; their options"
    )


def _add_checks(commands: Any) -> None:
    """Commands that try what the user made."""
    named = "path/to/file.py:name, or a dotted path"
    check = commands.add_parser("check-reward", help="try a reward of yours on a few crystals or molecules")
    check.add_argument("reward", help=f"{named}: a class, or a function of structures")
    check.add_argument("--molecules", action="store_true", help="on molecules; without this option on crystals")
    forces = commands.add_parser("check-force-field", help="try a force field of yours on a few molecules")
    forces.add_argument("force_field", help=f"{named}: a calculator of ASE, or a class with evaluate")
    backbone = commands.add_parser(
        "check-backbone", help="try a model as a policy: steps, log-ratios, padding, noising"
    )
    backbone.add_argument("backbone", help="shipped name, run directory, folder or checkpoint")


def _sampling(parser: argparse.ArgumentParser, count: str) -> None:
    """Options of commands that sample, so many if not told otherwise."""
    parser.add_argument(
        "-n",
        "--num-samples",
        "--num-molecules",
        dest="num_samples",
        type=int,
        metavar="N",
        help=f"how many; {count} if not given",
    )
    parser.add_argument("--time-step", type=int, help="T, transitions of the walk; 100 for molecules, 50 for crystals")
    parser.add_argument("--seed", type=int, help="of sizes and noise; 1000003 if not given")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])


# Imports stand inside the commands, so that `atomrl --help` and a mistyped option answer at once.


def _train(options: argparse.Namespace) -> None:
    from atomrl.config import load_config  # noqa: PLC0415
    from atomrl.config.naming import named_yaml  # noqa: PLC0415
    from atomrl.training.crew import Crew  # noqa: PLC0415
    from atomrl.training.run import train_and_evaluate  # noqa: PLC0415
    from atomrl.training.run_directory import refuse_forgotten  # noqa: PLC0415

    if options.print_config:
        _print_config(options)
        return
    with Crew(options.launch) as crew:  # around all, so that a mistake is told once
        name, overrides = named_yaml(options.overrides, options.config_name, options.config_dir)
        config = load_config(name, overrides, options.config_dir)
        if config.resume and options.config_dir is None:
            refuse_forgotten(config, overrides)
        train_and_evaluate(config, name, shlex.join(["atomrl", *options.words]), crew)


def _print_config(options: argparse.Namespace) -> None:
    from atomrl.config import load_config, to_yaml  # noqa: PLC0415
    from atomrl.config.naming import named_yaml  # noqa: PLC0415

    name, overrides = named_yaml(options.overrides, options.config_name, options.config_dir)
    print(to_yaml(load_config(name, overrides, options.config_dir)), end="")


def _resume(options: argparse.Namespace) -> None:
    from atomrl.resume_command import resume_command  # noqa: PLC0415

    resume_command(options)


def _sample(options: argparse.Namespace) -> None:
    from atomrl.commands import sample_command  # noqa: PLC0415

    sample_command(options)


def _evaluate(options: argparse.Namespace) -> None:
    from atomrl.commands import evaluate_command  # noqa: PLC0415

    evaluate_command(options)


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
        raise UserError(f"--output {options.output} holds a model: give another folder, or remove that one")
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

        known = training_properties(read_stored(str(options.where)).card.get("conditioning", []))
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


def _check_reward(options: argparse.Namespace) -> None:
    from atomrl.check_commands import check_reward_command  # noqa: PLC0415

    check_reward_command(options)


def _check_force_field(options: argparse.Namespace) -> None:
    from atomrl.check_commands import check_force_field_command  # noqa: PLC0415

    check_force_field_command(options)


def _check_backbone(options: argparse.Namespace) -> None:
    from atomrl.check_commands import check_backbone_command  # noqa: PLC0415

    check_backbone_command(options)


_COMMANDS = {
    "train": _train,
    "resume": _resume,
    "sample": _sample,
    "evaluate": _evaluate,
    "pretrain": _pretrain,
    "import": _import,
    "data": _data,
    "check-reward": _check_reward,
    "check-force-field": _check_force_field,
    "check-backbone": _check_backbone,
    **FINDING,
}
