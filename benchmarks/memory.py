"""Peak memory of one whole iteration, all transitions trained, measured in a process of its own."""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from atomrl.checkpoints.backbone import load_backbone
from atomrl.config import TrainSection
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.records import RewardTable
from atomrl.core.update import update, usable
from atomrl.rewards.dummy import DummyReward
from atomrl.training.experiment import update_config
from atomrl.util.glibc_malloc import keep_freed_memory
from benchmarks.edm import GROUPS, Case, ours_rollout

GOAL = 1.5e9
"""Bytes, at T = 1000."""

STATUS = Path("/proc/self/status")
"""Where Linux says what a process took."""


@dataclass(frozen=True)
class Peak:
    """Resident memory of a process that ran one iteration. Scoring processes are not part of it.

    Attributes:
        name: what was done.
        loaded: bytes, the peak when imports and weights were there.
        total: bytes, the peak at the end.
        seconds: of the iteration.
    """

    name: str
    loaded: int
    total: int
    seconds: float

    def line(self) -> str:
        """One row under `timing.HEADER`, whose columns do not fit it."""
        iteration, total = (self.total - self.loaded) / 1e9, self.total / 1e9
        goal, took = f"goal {GOAL / 1e9:g} GB", f"{self.seconds:.0f} s"
        return f"{self.name:<48}{iteration:5.2f} GB, with the program {total:5.2f} GB ({goal}), {took}"


def peak(steps: int, samples: int, threads: int, keep: bool = True) -> Peak:
    """Run an iteration of groups 4 x `samples` and T = `steps` on the shipped backbone in a fresh process.

    Args:
        steps: T.
        samples: of each group.
        threads: of torch.
        keep: let the process keep what it frees, as the commands of the package do.

    Raises:
        CalledProcessError: the process failed; what it printed is on the terminal.
    """
    words = [str(steps), str(samples), str(threads), *([] if keep else ["--hand-back"])]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *words],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        check=True,
    )
    return Peak(**json.loads(done.stdout))


def main() -> None:
    """The fresh process: run the iteration and print a `Peak` as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    for name in ("steps", "samples", "threads"):
        parser.add_argument(name, type=int)
    parser.add_argument("--hand-back", action="store_true", help="leave the allocator as it is")
    options = parser.parse_args()
    if not options.hand_back:
        keep_freed_memory()
    torch.set_num_threads(options.threads)
    network = load_backbone("edm_qm9_small").network
    case = Case("shipped", network, options.steps, options.samples)
    loaded = _peak_so_far()
    seconds = _iterate(case)
    name = f"peak memory, one iteration {GROUPS} x {options.samples}, T={options.steps}"
    print(json.dumps(asdict(Peak(name, loaded, _peak_so_far(), seconds))))


def _iterate(case: Case) -> float:
    """Sample, score and update, as a run does with the published objective; seconds."""
    started = time.monotonic()
    settings = TrainSection(exploded_above=math.inf)  # two steps explode, and take as much memory as others
    config, objective, reward = settings, FedGRPO(FedGRPOConfig()), DummyReward()
    case.policy.keep_reference()
    optimizer = torch.optim.AdamW(case.policy.trainable().parameters(), lr=config.learning_rate)
    trajectory = ours_rollout(case)
    scored = [reward.score(bucket.structures, bucket.prompts) for bucket in trajectory.buckets]
    active = usable(trajectory, config.exploded_above)
    advantages = objective.advantages(RewardTable.concatenate(scored), trajectory.group_ids, active)
    update(case.policy, trajectory, advantages, objective, optimizer, update_config(config, len(trajectory)))
    return time.monotonic() - started


def _peak_so_far() -> int:
    """Largest resident memory of this process, bytes.

    Linux's own file where there is one: the maximum of `getrusage` survives `exec` there, so a child starts with what
    its parent had.
    """
    if not STATUS.exists():
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest if sys.platform == "darwin" else largest * 1024
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


if __name__ == "__main__":
    main()
