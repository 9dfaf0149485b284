"""How many held-out crystals does a model find by their formula? `python -m studies.predicted_structures MODEL DATA`.

Asks a model that is conditioned on composition for each crystal of the splits `val` and `test` whose reduced formula
the training split does not have, by its formula and number of atoms, and compares the samples with the crystal by
pymatgen's matcher. Beside it stands the look-up that needs no model: training crystals of the nearest formulas with as
many atoms of each kind, their elements replaced.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np

from atomrl.checkpoints.crystal import CrystalBackbone
from atomrl.checkpoints.stored import read_stored
from atomrl.config import as_trained, with_overrides
from atomrl.core.protocols import Model
from atomrl.data.packed_crystals import TEST, load_splits, load_test
from atomrl.domains import domain_for
from atomrl.evaluation.compositions import composition_condition
from atomrl.evaluation.evaluate import SamplePlan
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.evaluation.structure_prediction import held_out, predict
from atomrl.matching.matcher import Tolerances
from atomrl.sampling.chosen import sections_of
from atomrl.structures.cells import Crystal
from atomrl.util.command_parser import CommandParser
from atomrl.util.device import choose_device
from atomrl.util.errors import UserError
from atomrl.util.files import require_writable, write_json, write_whole
from studies.queue import ending_like_a_queue

SPLITS = ("val", TEST)
TABLE, RECORD = "prediction.md", "prediction.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and write it. Exit code 2 for a user's mistake."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with ending_like_a_queue():
        _run(_parser().parse_args(words), shlex.join(["python", "-m", "studies.predicted_structures", *words]))


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog="python -m studies.predicted_structures", description=__doc__)
    parser.add_argument("model", help="shipped name, run directory, folder or checkpoint; conditioned on composition")
    parser.add_argument(
        "data", help="the set that it was trained on: prototypes, or a folder with train.csv and val.csv"
    )
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="of the section model: model.guidance_scale=3"
    )
    parser.add_argument(
        "--splits", nargs="+", choices=SPLITS, default=list(SPLITS), help="that crystals are taken from"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="at most N crystals, chosen by the seed; default: all")
    parser.add_argument("-n", "--num-samples", type=int, default=5, metavar="N", help="samples of each; default 5")
    parser.add_argument("--tries", type=int, default=20, metavar="N", help="walks of a sample at most; default 20")
    parser.add_argument("--time-step", type=int, default=50, help="T, transitions of the walk; default 50")
    parser.add_argument("--seed", type=int, default=0, help="of the noise, and of the choice by --limit")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--output", type=Path, default=Path("predicted_structures"), help="folder for table and record")
    return parser


def _run(options: argparse.Namespace, command: str) -> None:
    numbers = {"-n": options.num_samples, "--tries": options.tries, "--time-step": options.time_step}
    for name, number in {**numbers, "--limit": 1 if options.limit is None else options.limit}.items():
        if number < 1:
            raise UserError(f"{name} {number}: must be at least 1")
    if (options.output / TABLE).exists():
        raise UserError(f"--output {options.output} holds a prediction: give another folder, or remove that one")
    model = _model(options.model, options.overrides)
    walk = model.sampling
    known, wanted = _crystals(options)
    require_writable(options.output, f"--output {options.output}")
    plan = SamplePlan(options.num_samples, options.time_step, options.seed)
    kept = KeptSamples(options.output, repr(walk))
    with kept.until_written(command):
        made = predict(model, known, wanted, plan, options.tries, choose_device(options.device), kept)
        ltol, stol, angle_tol = astuple(Tolerances())
        notes = [
            f"crystals of {' and '.join(options.splits)} of {options.data} whose formula is none of {len(known):,} "
            "training crystals",
            f"at most {options.tries} walks for a sample, T = {options.time_step}, seed {options.seed}, "
            f"{walk.sampler}, eta {walk.eta:g}, guidance {walk.guidance_scale:g}",
            f"StructureMatcher: ltol {ltol}, stol {stol}, angle_tol {angle_tol}",
            f"`{command}`",
        ]
        text = made.markdown(notes)
        write_json(options.output / RECORD, {"command": command, **made.as_json()})
        write_whole(options.output / TABLE, text)
    print(text)
    print(f"table and a record of each crystal -> {options.output}")


def _model(where: str, overrides: Sequence[str]) -> CrystalBackbone:
    """The model.

    Raises:
        UserError: there is none, it is not conditioned on composition, or an override is not about how it samples.
    """
    walk, about_reward = sections_of(overrides)
    if about_reward:
        raise UserError(f"{about_reward[0]}: nothing is rewarded here; leave it out")
    stored = read_stored(where)
    domain = domain_for(stored)
    config = with_overrides(as_trained(domain.name, stored.card), walk)
    model: Model = domain.load(stored, config)
    composition_condition(model)
    assert isinstance(model, CrystalBackbone)
    return model


def _crystals(options: argparse.Namespace) -> tuple[list[Crystal], list[Crystal]]:
    """The training crystals, and those to predict.

    Raises:
        UserError: the set has no crystal of that kind.
    """
    splits = load_splits(options.data)
    parts = {"val": splits.validation, TEST: load_test(options.data) if TEST in options.splits else None}
    known = [splits.train.crystal(row) for row in range(len(splits.train))]
    others = [
        part.crystal(row) for name in options.splits if (part := parts[name]) is not None for row in range(len(part))
    ]
    wanted = held_out(known, others)
    if not wanted:
        raise UserError(
            f"{options.data}: none of the {len(others):,} crystals of {' and '.join(options.splits)} has a formula "
            "that the training split lacks: split the set by formula, atomrl data split"
        )
    rng = np.random.Generator(np.random.PCG64(options.seed))
    chosen = sorted(rng.permutation(len(wanted))[: options.limit].tolist())
    return known, [wanted[row] for row in chosen]


if __name__ == "__main__":
    main()
