"""`eval_elign_rollout.py`: molecules of a run, of one or more seeds, in a file for `compute_elign_metrics.py`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch

from atomrl.checkpoints.stored import read_stored
from atomrl.config import Config
from atomrl.config.outputs import EvaluationSection
from atomrl.core.protocols import Model
from atomrl.core.records import Structures
from atomrl.domains import domain_of
from atomrl.evaluation.evaluate import SamplePlan, draw
from atomrl.export.rollout_file import RolloutFile
from atomrl.training.run_directory import described_run, find_run
from atomrl.util.command_parser import CommandParser
from atomrl.util.device import choose_device
from atomrl.util.errors import UserError
from atomrl.util.files import require_writable

SCRIPT = "eval_elign_rollout.py"


def rollout_command(words: Sequence[str]) -> None:
    """Sample and write.

    Raises:
        UserError: no such run, a run on crystals, options that contradict each other, or a file that cannot be written.
    """
    options = _parser().parse_args(words)
    checkpoint, described = find_run(options.checkpoint or options.run_dir)
    config = molecule_run(described_run(described, options.trust_code, "--trust-code"), described)
    for name in ("num_molecules", "sample_group_size", "each_prompt_sample"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be at least 1")
    if options.num_molecules % options.each_prompt_sample:
        raise UserError(
            f"--num-molecules {options.num_molecules} is not a multiple of --each-prompt-sample "
            f"{options.each_prompt_sample}: give whole groups"
        )
    _require_shared(options)
    if len(set(options.seed)) < len(options.seed):
        raise UserError(f"--seed {' '.join(map(str, options.seed))}: each seed once")
    plans = [_plan(options, config, seed) for seed in options.seed]
    require_writable(options.output.parent, f"the folder of --output {options.output}")
    model: Model = domain_of(config).load(read_stored(str(checkpoint)), config)
    device, each = choose_device(options.device), options.each_prompt_sample
    drawn = [draw(model, plan, each, device, f"seed {plan.seed}")[1] for plan in plans]
    about = {
        "run": str(options.run_dir),
        "checkpoint": str(checkpoint),
        "time_step": plans[0].time_step,
        "command": shlex.join(["python", SCRIPT, *words]),
    }
    seeds = torch.tensor(options.seed).repeat_interleave(options.num_molecules)
    RolloutFile(Structures.concatenate(drawn), seeds, about).write(options.output)
    print(f"{len(seeds)} molecules of {len(options.seed)} seeds, T = {plans[0].time_step} -> {options.output}")


def _require_shared(options: argparse.Namespace) -> None:
    """Raise UserError for a prefix that is asked for, and that no molecules share."""
    if not options.skip_prefix:
        return
    if not options.share_initial_noise:
        raise UserError(
            f"--skip-prefix {options.skip_prefix}: molecules that walk together start together; give "
            "--share-initial-noise too"
        )
    if options.each_prompt_sample == 1:
        raise UserError(f"--skip-prefix {options.skip_prefix} with --each-prompt-sample 1: nothing shares the prefix")


def molecule_run(config: Config, described: Path) -> Config:
    """The configuration of a run on molecules.

    Raises:
        UserError: it is one on something else.
    """
    if config.domain != "molecules":
        raise UserError(
            f"{described} is of a run on {config.domain}: this script is for molecules, take atomrl evaluate"
        )
    return config


def _plan(options: argparse.Namespace, config: Config, seed: int) -> SamplePlan:
    """The samples of one seed: as the run drew them where the options say nothing, but each with noise of its own."""
    time_step = config.model.time_step if options.time_step is None else options.time_step
    if time_step < 1:
        raise UserError(f"--time-step {time_step}: must be at least 1")
    return SamplePlan(
        count=options.num_molecules // options.each_prompt_sample,
        time_step=time_step,
        seed=seed,
        micro_batch_size=options.sample_group_size * options.each_prompt_sample,
        share_initial_noise=options.share_initial_noise,
        skip_prefix=options.skip_prefix,
        asked=config.dataloader.context,
    )


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog=SCRIPT, description="draw molecules from a run and keep them in a file")
    parser.add_argument("--run-dir", type=Path, required=True, help="run directory of the training")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint of the run; the latest if not given")
    parser.add_argument(
        "--num-molecules", type=int, default=1024, help="number of molecules for each seed; default 1024"
    )
    parser.add_argument("--output", type=Path, required=True, help="file for the samples, e.g. samples.pt")
    parser.add_argument(
        "--time-step", type=int, help="T, the transitions of the walk from noise to molecule; the run's if not given"
    )
    parser.add_argument(
        "--sample-group-size", type=int, default=64, help="prompts whose molecules are drawn at once; default 64"
    )
    parser.add_argument(
        "--each-prompt-sample", type=int, default=1, help="molecules of one prompt, which have one size; default 1"
    )
    parser.add_argument(
        "--share-initial-noise", action="store_true", help="start the molecules of a prompt from the same noise"
    )
    parser.add_argument(
        "--skip-prefix", type=int, default=0, help="first transitions that the molecules of a prompt share; default 0"
    )
    parser.add_argument(
        "--seed", type=int, nargs="+", default=[EvaluationSection().seed], help="one or more seeds; default 1000003"
    )
    parser.add_argument(
        "--device",
        default="auto",
        choices=["auto", "cpu", "cuda"],
        help="where torch computes; auto, the default, takes a GPU where there is one",
    )
    parser.add_argument(
        "--trust-code", action="store_true", help="run code from outside the package that the run's config.yaml names"
    )
    return parser
