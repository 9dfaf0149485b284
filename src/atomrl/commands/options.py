"""The commands of `atomrl` and their options; `cli` runs them."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

from atomrl.finding.command_line import add_finding, keys_of_pretraining
from atomrl.sharing.licences import LICENCES
from atomrl.util.command_parser import CommandParser


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    whole = CommandParser(prog="atomrl", description="RL post-training of atomistic diffusion models")
    whole.add_argument("--version", action="version", version=f"atomrl {version('atomrl')}")
    commands = whole.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="post-train a model; without further words the demo, on molecules")
    train.add_argument("--config-name", help="name of a YAML in the package's conf/, without its ending; default demo")
    train.add_argument(
        "--config-dir", type=Path, help="folder of yours to take the YAML from, in place of the package's"
    )
    train.add_argument(
        "--print-config", action="store_true", help="print the whole configuration that these words make, and end"
    )
    _takes_keys(
        train,
        "keys to set on top of the YAML, in Hydra's grammar (atomrl keys lists them); "
        "experiment=prototypes/rl_dng takes that YAML of conf/experiment",
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
    resume = commands.add_parser("resume", help="continue a run that was stopped, with the settings of its config.yaml")
    resume.add_argument("run", type=Path, metavar="RUN", help="run directory, or its checkpoint_latest.pth")
    resume.add_argument(
        "--trust-code",
        action="store_true",
        help="run code from outside the package that config.yaml names, e.g. a reward",
    )
    _takes_keys(
        resume,
        "keys of how long the run is, where it runs, and what it writes and judges, e.g. dataloader.epoches=200, "
        "reward.workers=4, evaluation.relaxed=200",
    )


def _add_sample(commands: Any) -> None:
    """`atomrl sample`."""
    sample = commands.add_parser("sample", help="draw molecules or crystals from a model")
    _sampling(sample, "10")
    sample.add_argument(
        "--backbone",
        help="model to draw from: shipped name (atomrl list backbones), run directory, folder, checkpoint or "
        "hub:user/name; default edm_qm9_small",
    )
    sample.add_argument(
        "--best-of",
        type=int,
        default=0,
        metavar="N",
        help="draw N candidates for each sample and keep the best by a reward",
    )
    sample.add_argument(
        "--steer",
        type=int,
        default=0,
        metavar="N",
        help="draw each sample with N particles, which are resampled on the way by the reward of z0_pred, the finished "
        "sample that the model predicts at a step",
    )
    _steering(sample)
    sample.add_argument(
        "--reject",
        type=int,
        default=0,
        metavar="N",
        help="draw a sample again, up to N times, until it is a stable molecule or has a sound cell, e.g. without "
        "overlapping atoms; one that never passes is left out",
    )
    _asking(sample)
    sample.add_argument(
        "--config-name",
        help="YAML whose reward chooses (--best-of, --steer); if not given, that of the demo for this kind of model",
    )
    _takes_keys(
        sample,
        "keys of the section model, e.g. model.guidance_scale=3, or of the reward that chooses, e.g. "
        "reward.stability_weight=2",
    )
    sample.add_argument(
        "--output",
        type=Path,
        help="file for the samples: .extxyz, .sdf (molecules) or .cif (crystals); default samples.extxyz",
    )


def _asking(sample: argparse.ArgumentParser) -> None:
    """What the samples shall be."""
    sample.add_argument(
        "--sizes", type=int, nargs="+", default=[], metavar="ATOMS", help="numbers of atoms to draw, each equally often"
    )
    sample.add_argument(
        "--context",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="values to ask a conditional model for, e.g. alpha=75.0 (Bohr^3) or chemical_system=Li-O; values that "
        "are not given are drawn",
    )
    sample.add_argument(
        "--compositions",
        nargs="+",
        default=[],
        metavar="FORMULA",
        help="formulas to draw crystals of, -n of each, e.g. SrTiO3 NaCl; the model must be conditioned on composition",
    )
    sample.add_argument(
        "--formula-units",
        type=int,
        nargs="+",
        default=[],
        metavar="Z",
        help="formula units in a cell, with --compositions; if not given, as often as in the training set",
    )
    sample.add_argument(
        "--tries", type=int, metavar="N", help="most walks for each sample of --compositions; default 20"
    )


def _add_evaluate(commands: Any) -> None:
    """`atomrl evaluate`."""
    evaluate = commands.add_parser("evaluate", help="judge a base and a trained model on fresh samples")
    _sampling(evaluate, "1000")
    evaluate.add_argument(
        "--structures",
        nargs="+",
        metavar="FILE",
        help="files (.cif, .extxyz, .json.gz, .sdf) or folders to judge in place of a model's samples, a column each",
    )
    evaluate.add_argument(
        "--domain", choices=["crystals", "molecules"], help="what --structures holds; by default its first one decides"
    )
    evaluate.add_argument(
        "--base",
        help="base model: shipped name, run directory, folder, checkpoint or hub:user/name; if not given, what the "
        "trained run started from, else edm_qm9_small, or crystal_small for a model of crystals",
    )
    evaluate.add_argument(
        "--trained",
        help="trained model: run directory or checkpoint, or as for --base; if not given, the base is judged alone",
    )
    evaluate.add_argument(
        "--trust-code",
        action="store_true",
        help="run code from outside the package that config.yaml names, e.g. a reward",
    )
    _controls(evaluate)
    evaluate.add_argument(
        "--context",
        nargs="*",
        metavar="NAME=VALUE",
        help="values to ask conditional models for, as for atomrl sample; if not given, those of the run's "
        "dataloader.context; the option without a value draws all of them",
    )
    _takes_keys(
        evaluate,
        "keys of the sections reward, evaluation and model, e.g. evaluation.relaxed=200; "
        "dataloader.smiles_path, the known molecules of novelty; and threads=4, the number of torch's threads",
    )
    evaluate.add_argument(
        "--output", type=Path, default=Path("evaluation"), help="folder for tables and samples; default evaluation"
    )
    evaluate.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help="folder that keeps what is sampled and relaxed, for other evaluations with the same folder; if not given, "
        "the output folder keeps it until the tables are written",
    )


def _controls(evaluate: argparse.ArgumentParser) -> None:
    """Columns beside base and trained."""
    evaluate.add_argument(
        "--best-of", type=int, default=0, metavar="N", help="add a control: the best of every N samples of the base"
    )
    evaluate.add_argument(
        "--steer",
        type=int,
        default=0,
        metavar="N",
        help="add a control: samples of the base, each drawn with N particles that are resampled on the way by the "
        "training's reward",
    )
    _steering(evaluate)
    evaluate.add_argument(
        "--known",
        type=int,
        default=0,
        metavar="N",
        help="add a column of N known samples: of QM9, or the crystals of reward.reference_dataset",
    )
    evaluate.add_argument(
        "--reject",
        type=int,
        default=0,
        metavar="N",
        help="add a control without scoring: draw a sample of the base again, up to N times, until it is a stable "
        "molecule or has a sound cell",
    )


def _add_report(commands: Any) -> None:
    """`atomrl report`."""
    report = commands.add_parser(
        "report", help="make one HTML file of runs: curves, tables, samples in 3-D; it works offline"
    )
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
        help="the .html file; default report.html in the run or the evaluation, or in this folder if there are several",
    )


def _add_makers(commands: Any) -> None:
    """Commands that make models and sets."""
    pretrain = commands.add_parser("pretrain", help="pre-train a backbone or a property predictor")
    pretrain.add_argument(
        "what",
        choices=["edm", "regressor", "vae", "ldm", "predictor"],
        help="edm: a model of molecules; regressor: a property of molecules; vae, then ldm: a model of crystals; "
        "predictor: properties of crystals",
    )
    _takes_keys(pretrain, "keys of the run, its sections train and model among them")
    pretrain.more_help = keys_of_pretraining

    imported = commands.add_parser("import", help="turn published weights into the folder of a model")
    imported.add_argument(
        "what",
        choices=["edm", "chemeleon2"],
        help="edm: args.pickle and generative_model_ema.npy, for molecules; chemeleon2: a checkpoint of a VAE, a "
        "latent diffusion model or a predictor, for crystals",
    )
    imported.add_argument("where", type=Path, help="edm: the folder with these two files; chemeleon2: the checkpoint")
    imported.add_argument(
        "--sizes",
        type=Path,
        help="JSON with the sizes of the training set, {atoms: count}; if not given, those published for QM9, "
        "GEOM-Drugs or MP-20",
    )
    imported.add_argument(
        "--properties",
        action="store_true",
        help="edm: for a conditional model, add how the values of its properties are distributed in QM9 (extra data)",
    )
    imported.add_argument(
        "--vae",
        type=Path,
        help="chemeleon2: VAE of a diffusion model whose checkpoint does not hold it: a checkpoint or a folder",
    )
    imported.add_argument("--output", type=Path, required=True, help="folder for the model")

    data = commands.add_parser("data", help="make a set of crystals, a reference set with its hull, or a split")
    data.add_argument(
        "what",
        choices=["prototypes", "reference", "split"],
        help="prototypes: the crystal set that ships; reference: a reference set and a hull of known crystals; split: "
        "CSV files, split by formula",
    )
    data.add_argument(
        "rest",
        nargs=argparse.REMAINDER,
        help="for prototypes: build, finish, check or hull, with their options; for the others see atomrl data "
        "reference --help and atomrl data split --help",
    )


def _add_push(commands: Any) -> None:
    """`atomrl push`."""
    push = commands.add_parser("push", help="put a model on the Hugging Face hub, with a card (extra hub)")
    push.add_argument(
        "model", metavar="RUN", help="run directory (its latest checkpoint), a checkpoint, or a folder of weights"
    )
    push.add_argument("repository", metavar="USER/NAME", help="repository on the hub; it is made if there is none")
    push.add_argument(
        "--licence",
        "--license",
        choices=LICENCES,
        help="licence of the weights; if not given, that of the shipped model that the run started from",
    )
    push.add_argument(
        "--evaluation",
        type=Path,
        metavar="FOLDER",
        help="folder that `atomrl evaluate --trained RUN` wrote; if not given, the one in the run directory",
    )
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument("--replace", action="store_true", help="overwrite files that differ in the repository")
    push.add_argument("--message", default="Weights by atomrl push", help="message of the commit")
    push.add_argument("--dry-run", action="store_true", help="print the files and the card, and send nothing")
    push.add_argument("--output", type=Path, metavar="FOLDER", help="folder to write the files into; nothing is sent")


def _add_checks(commands: Any) -> None:
    """Commands that try what the user made."""
    named = "path/to/file.py:name, or a dotted path"
    check = commands.add_parser("check-reward", help="try a reward of yours on a few crystals or molecules")
    check.add_argument("reward", help=f"{named}: a class, or a function of structures")
    check.add_argument("--molecules", action="store_true", help="try it on molecules; if not given, on crystals")
    forces = commands.add_parser("check-force-field", help="try a force field of yours on a few molecules")
    forces.add_argument("force_field", help=f"{named}: a calculator of ASE, or a class with evaluate")
    backbone = commands.add_parser(
        "check-backbone", help="try a model as a policy: steps, log-ratios, padding, noising"
    )
    backbone.add_argument(
        "backbone", help="model to try: shipped name, run directory, folder, checkpoint or hub:user/name"
    )


def _steering(parser: argparse.ArgumentParser) -> None:
    """How `--steer` resamples."""
    parser.add_argument(
        "--steer-temperature",
        type=float,
        metavar="X",
        help="with --steer: a particle is drawn with a probability proportional to exp(score / X), with scores in "
        "units of their standard deviation among the particles; with 0 all become copies of the best one; default 0.5",
    )
    parser.add_argument(
        "--steer-places",
        type=int,
        metavar="N",
        help="with --steer: how often the particles are resampled, at most T times; default 3",
    )


def _sampling(parser: argparse.ArgumentParser, count: str) -> None:
    """Options of commands that sample, so many if not told otherwise."""
    parser.add_argument(
        "-n",
        "--num-samples",
        "--num-molecules",
        dest="num_samples",
        type=int,
        metavar="N",
        help=f"number of samples; {count} if not given",
    )
    parser.add_argument(
        "--time-step",
        type=int,
        help="T, the transitions of the walk from noise to sample; if not given, 100 for molecules, 50 for crystals",
    )
    parser.add_argument("--seed", type=int, help="seed of sizes and noise; 1000003 if not given")
    parser.add_argument(
        "--device",
        default="auto",
        choices=["auto", "cpu", "cuda"],
        help="where torch computes; auto, the default, takes a GPU where there is one",
    )


def _takes_keys(command: argparse.ArgumentParser, about: str) -> None:
    """The `key=value` words of a command; with a default, they are not named as missing where something else is."""
    command.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=about)
