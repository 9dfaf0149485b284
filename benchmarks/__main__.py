"""Print speed ratios against plain implementations, and peak memory: `make bench`, or `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from atomrl.checkpoints.backbone import load_backbone
from atomrl.networks.edm import EDMConfig
from atomrl.util.command_parser import CommandParser
from atomrl.util.cpu_count import cores
from atomrl.util.errors import UserError
from benchmarks import chemistry, crystals, edm, gpu, learning, memory, signal
from benchmarks.chemistry import ParentTime
from benchmarks.crystal_source import BACKBONE, CrystalSource
from benchmarks.crystals import Part
from benchmarks.gpu import Card
from benchmarks.learning_arms import COMPARISONS
from benchmarks.memory import Peak
from benchmarks.signal import Signal
from benchmarks.timing import CLOCKS, HEADER, Ratio
from studies.queue import ending_like_a_queue
from studies.records import ROOT
from studies.studies import whole_numbers

PARTS = ("edm", "wide", "stability", "xtb", "memory", "signal", "chgnet", "matching", "reward")

GPU = "gpu"
"""A part that needs one; never run unless it is named."""

LEARNING = "learning"
"""A part that takes hours, in steps that go on where they were stopped; never run unless it is named."""

OF_LEARNING = ("of", "arms", "seeds", "jobs", "folder", "docs")
OF_THE_OTHERS = ("turns", "clock", "crystals", "crystal_backbone")
"""Options."""


def main() -> None:
    """Run the chosen parts and print one line for each measurement."""
    parser = CommandParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        choices=[*PARTS, GPU, LEARNING, []],
        help=f"of {', '.join(PARTS)}; all of them if none is named; {GPU} where there is one; or {LEARNING}",
    )
    own = parser.add_argument_group(LEARNING)
    own.add_argument("--of", default="molecules", choices=COMPARISONS, help="what is compared")
    own.add_argument("--arms", help="of its table, like 'AWM,policy gradient': train and report these alone")
    own.add_argument("--seeds", default="0", help="of its trainings, like 0,1,2")
    own.add_argument("--jobs", type=int, default=cores(), help="its trainings at once, which share the cores")
    own.add_argument("--folder", type=Path, help="of its trainings; runs/learning, with --quick runs/learning-quick")
    own.add_argument(
        "--docs", type=Path, help="of its table and plot; docs/results, with --quick that of the trainings"
    )
    parser.add_argument("--quick", action="store_true", help="short walks and few samples: does it run at all?")
    parser.add_argument("--threads", type=int, help=f"of torch, in {LEARNING} of each step; all cores if not given")
    parser.add_argument("--turns", type=int, default=3, help="of each side; the fastest counts")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu on a busy machine, with --threads 1")
    parser.add_argument("--crystals", type=Path, help="folder of a finished crystal set; the shipped one if not given")
    parser.add_argument("--crystal-backbone", default=BACKBONE, help="name or folder; %(default)s if not given")
    options = parser.parse_args()
    for name, number in (("threads", options.threads), ("turns", options.turns)):
        if number is not None and number < 1:
            parser.error(f"--{name} {number}: must be at least 1")
    unread, of_whom = (OF_THE_OTHERS, "the other parts") if LEARNING in options.parts else (OF_LEARNING, LEARNING)
    if given := [name for name in unread if getattr(options, name) != parser.get_default(name)]:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        parser.error(f"{names}: {of_whom} alone would read that; leave it out")
    if LEARNING in options.parts:
        _learn(parser, options)
        return
    options.threads = options.threads or cores()
    torch.set_num_threads(options.threads)
    print(
        f"{options.threads} thread(s), {options.clock} clock, least of {options.turns} interleaved turns, "
        f"load {os.getloadavg()[0]:.1f} on {cores()} cores"
    )
    print(HEADER)
    try:
        for part in options.parts or PARTS:
            for row in rows(part, options):
                print(row.line(), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _learn(parser: CommandParser, options: argparse.Namespace) -> None:
    """The learning benchmark, with the exit codes of `python -m results`."""
    if len(options.parts) > 1:
        parser.error(f"{LEARNING} takes hours: run it alone")
    folder = options.folder or Path("runs/learning-quick" if options.quick else "runs/learning")
    docs = options.docs or (folder if options.quick else ROOT / "docs" / "results")
    with ending_like_a_queue():
        seeds = whole_numbers(options.seeds, "--seeds")
        names = () if options.arms is None else tuple(name.strip() for name in options.arms.split(","))
        pace = learning.Pace(options.jobs, options.threads)
        for line in learning.learn(options.of, folder, docs, seeds, pace, options.quick, names):
            print(line)


def rows(part: str, options: argparse.Namespace) -> Iterator[Ratio | ParentTime | Peak | Signal | Part | Card]:
    """The measurements of one part."""
    quick, turns, clock = options.quick, options.turns, options.clock
    samples = 2 if quick else edm.SAMPLES
    if part == "edm":
        network = load_backbone("edm_qm9_small").network
        name = f"shipped {network.config.hidden} x {network.config.layers}"
        yield from edm.compare(edm.Case(name, network, 10 if quick else 100, samples), turns, clock, (3.0, 2.0))
    elif part == "wide":
        case = edm.Case.random("256 x 9", EDMConfig(hidden=256, layers=9), 2 if quick else 5, samples)
        yield from edm.compare(case, turns, clock, (None, None))
    elif part == "stability":
        yield chemistry.stability(100 if quick else 1000)
    elif part == "xtb":
        yield from chemistry.xtb_pool(8 if quick else 128, turns)
        yield chemistry.xtb_alone(8 if quick else 128, turns)
    elif part == "memory":
        yield memory.peak(20 if quick else 1000, edm.SAMPLES, options.threads)
    elif part == "signal":
        yield from signal.signals(2, 10, 2, 4) if quick else signal.signals(6, 2, 8, 16)
    elif part == GPU:
        yield from gpu.measure(gpu.require_gpu(), gpu.QUICK if quick else gpu.Size(), turns)
    else:
        yield from crystal_rows(part, CrystalSource.load(options.crystals, options.crystal_backbone), options)


def crystal_rows(part: str, source: CrystalSource, options: argparse.Namespace) -> Iterator[Ratio | Part]:
    """The measurements of a part that needs crystals."""
    quick, turns = options.quick, options.turns
    if part == "chgnet":
        yield from crystals.chgnet(source, 16 if quick else 128, turns, options.clock)
    elif part == "matching":
        yield from crystals.matching(source, 50 if quick else 1000, turns)
    elif part == "reward":
        yield from crystals.reward(source, 16 if quick else 320)


if __name__ == "__main__":
    main()
