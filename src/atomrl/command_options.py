"""The commands of `atomrl` and their options; `cli` runs them."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

from atomrl.command_parser import CommandParser
from atomrl.finding.command_line import add_finding, keys_of_pretraining
from atomrl.sharing.licences import LICENCES


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    whole = CommandParser(prog="atomrl", description="RL post-training of atomistic diffusion models")
    whole.add_argument("--version", action="version", version=f"atomrl {version('atomrl')}")
    commands = whole.add_subparsers(dest="command", required=True)

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
    _add_report(commands)
    _add_makers(commands)
    _add_push(commands)
    _add_checks(commands)
    add_finding(commands)
    return whole


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
    sample.add_argument(
        "--backbone", help="shipped name (atomrl list backbones), run directory, folder, checkpoint or hub:user/name"
    )
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
    _asking(sample)
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


def _asking(sample: argparse.ArgumentParser) -> None:
    """What the samples shall be."""
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
    evaluate.add_argument("--base", help="shipped name, run directory, folder, checkpoint or hub:user/name")
    evaluate.add_argument(
        "--trained",
        help="run directory or checkpoint, or a model as for --base; leave out to judge the base alone",
    )
    evaluate.add_argument(
        "--trust-code", action="store_true", help="run code that the trained run's config.yaml names: a reward of yours"
    )
    evaluate.add_argument("--best-of", type=int, default=0, help="add best-of-N samples of the base as a control")
    evaluate.add_argument(
        "--context",
        nargs="*",
        metavar="NAME=VALUE",
        help="ask conditional models for these values, as for atomrl sample; by default for those that the run's "
        "dataloader.context names; without a value all are drawn",
    )
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
        help="of the sections reward, evaluation and model, other than the run's, e.g. evaluation.relaxed=200; and "
        "threads=4, of torch",
    )
    evaluate.add_argument("--output", type=Path, default=Path("evaluation"), help="folder for tables and samples")
    evaluate.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="what is sampled and relaxed stays there, and other evaluations with this option take it from there; "
        "by default it is in the output folder, until the tables are written",
    )


def _add_report(commands: Any) -> None:
    """`atomrl report`."""
    report = commands.add_parser("report", help="one HTML file of runs: curves, tables, samples in 3-D; works offline")
    report.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="run directory, a checkpoint in one, or the folder of an evaluation; several stand side by side",
    )
    report.add_argument(
        "--output",
        type=Path,
        help="an .html file; default report.html in the run or the evaluation, here if there are several",
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


def _add_push(commands: Any) -> None:
    """`atomrl push`."""
    push = commands.add_parser("push", help="put a model on the Hugging Face hub, with a card (extra hub)")
    push.add_argument(
        "model", metavar="RUN", help="run directory (its latest checkpoint), a checkpoint, or a folder of weights"
    )
    push.add_argument("repository", metavar="USER/NAME", help="of the model on the hub; made if there is none")
    push.add_argument(
        "--licence",
        "--license",
        choices=LICENCES,
        help="of the weights; if not given, that of the shipped model that the run started from",
    )
    push.add_argument(
        "--evaluation",
        type=Path,
        metavar="FOLDER",
        help="that `atomrl evaluate --trained RUN` wrote; if not given, the one in the run directory",
    )
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument("--replace", action="store_true", help="write over files that are there in other versions")
    push.add_argument("--message", default="Weights by atomrl push", help="of the commit")
    push.add_argument("--dry-run", action="store_true", help="print the files and the card, send nothing")
    push.add_argument("--output", type=Path, metavar="FOLDER", help="write the files into this folder, send nothing")


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
    backbone.add_argument("backbone", help="shipped name, run directory, folder, checkpoint or hub:user/name")


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
