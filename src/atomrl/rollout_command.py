"""`eval_elign_rollout.py`: molecules of a run, of one or more seeds, in a file for `compute_elign_metrics.py`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from atomrl.checkpoints.stored import read_stored
from atomrl.command_parser import CommandParser
from atomrl.config import Config
from atomrl.core.prompts import PromptPlan, SizeDistribution
from atomrl.core.protocols import DiffusionPolicy, Model
from atomrl.core.records import Bucket, Structures
from atomrl.core.rollout import RolloutConfig, rollout
from atomrl.domains import domain_of
from atomrl.export.rollout_file import RolloutFile
from atomrl.training.run_directory import described_run, find_run
from atomrl.util.device import choose_device
from atomrl.util.errors import UserError
from atomrl.util.files import require_writable
from atomrl.util.progress import bar

SCRIPT = "eval_elign_rollout.py"
FRESH_SEED = 1_000_003
"""Of the samples of an evaluation where none is given: no training draws with it."""


def rollout_command(words: Sequence[str]) -> None:
    """Sample and write.

    Raises:
        UserError: no such run, a run on crystals, options that contradict each other, or a file that cannot be written.
    """
    options = _parser().parse_args(words)
    checkpoint, described = find_run(options.checkpoint or options.run_dir)
    config = molecule_run(described_run(described, options.trust_code, "--trust-code"), described)
    plan = _rollout_config(options, config)
    for name in ("num_molecules", "sample_group_size", "each_prompt_sample"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be at least 1")
    if options.num_molecules % options.each_prompt_sample:
        raise UserError(
            f"--num-molecules {options.num_molecules} is no multiple of --each-prompt-sample "
            f"{options.each_prompt_sample}: give whole groups"
        )
    if len(set(options.seed)) < len(options.seed):
        raise UserError(f"--seed {' '.join(map(str, options.seed))}: each seed once")
    require_writable(options.output.parent, f"the folder of --output {options.output}")
    model: Model = domain_of(config).load(read_stored(str(checkpoint)), config)
    device = choose_device(options.device)
    policy = model.policy()
    assert isinstance(policy, torch.nn.Module)
    policy.to(device).eval()
    drawn = [_draw(policy, model, plan, options, seed, device) for seed in options.seed]
    about = {
        "run": str(options.run_dir),
        "checkpoint": str(checkpoint),
        "time_step": plan.time_step,
        "command": shlex.join(["python", SCRIPT, *words]),
    }
    seeds = torch.tensor(options.seed).repeat_interleave(options.num_molecules)
    RolloutFile(Structures.concatenate(drawn), seeds, about).write(options.output)
    print(f"{len(seeds)} molecules of {len(options.seed)} seeds, T = {plan.time_step} -> {options.output}")


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


def _draw(
    policy: DiffusionPolicy,
    model: Model,
    plan: RolloutConfig,
    options: argparse.Namespace,
    seed: int,
    device: torch.device,
) -> Structures:
    """The samples of one seed, on the CPU."""
    each = options.each_prompt_sample
    groups = options.num_molecules // each
    plan_of_prompts = PromptPlan(SizeDistribution(model.sizes), groups, each, seed, model.conditioning)
    prompts = plan_of_prompts.prompts(0).to(device)
    with bar(range(len(prompts)), f"seed {seed}", total=len(prompts)) as progress:

        def seen(bucket: Bucket) -> None:
            progress.update(len(bucket.prompts))

        done = rollout(policy, prompts, plan, seen)
    return done.structures.to(torch.device("cpu"))


def _rollout_config(options: argparse.Namespace, config: Any) -> RolloutConfig:
    """How to sample: as the run did where the options say nothing, but each sample with noise of its own."""
    time_step = config.model.time_step if options.time_step is None else options.time_step
    if time_step < 1:
        raise UserError(f"--time-step {time_step}: must be at least 1")
    return RolloutConfig(
        time_step=time_step,
        micro_batch_size=options.sample_group_size * options.each_prompt_sample,
        share_initial_noise=options.share_initial_noise,
        skip_prefix=options.skip_prefix,
        train_steps=0,
    )


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog=SCRIPT, description="draw molecules from a run and keep them in a file")
    parser.add_argument("--run-dir", type=Path, required=True, help="of the training")
    parser.add_argument("--checkpoint", type=Path, help="one of its checkpoints; the latest if not given")
    parser.add_argument("--num-molecules", type=int, default=1024, help="of each seed")
    parser.add_argument("--output", type=Path, required=True, help="file for the samples, e.g. samples.pt")
    parser.add_argument("--time-step", type=int, help="T, transitions of the walk; the run's if not given")
    parser.add_argument("--sample-group-size", type=int, default=64, help="prompts that are walked at once")
    parser.add_argument("--each-prompt-sample", type=int, default=1, help="molecules of one size")
    parser.add_argument("--share-initial-noise", action="store_true", help="one initial noise for each prompt")
    parser.add_argument("--skip-prefix", type=int, default=0, help="transitions that a prompt's molecules share")
    parser.add_argument("--seed", type=int, nargs="+", default=[FRESH_SEED], help="one or more")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--trust-code", action="store_true", help="run code that the run's config.yaml names")
    return parser
