"""`atomrl train` in one of several processes, of which one has a fault in its second iteration: `1:dies` and so on."""

import os
import signal
import sys
import time
from dataclasses import replace

import torch

from atomrl.cli import main
from atomrl.core.objectives.nft import NFT
from atomrl.rewards.dummy import DummyReward

LOSS, SCORE = NFT.loss, DummyReward.score


def loss(self, policy, samples, term):
    """NaN in the second iteration."""
    answer = LOSS(self, policy, samples, term)
    return replace(answer, loss=answer.loss * torch.nan) if samples.bucket.prompts.iteration == 1 else answer


def faulty(fault):
    """A scoring that does something else in the second iteration."""

    def score(self, structures, prompts):
        if prompts.iteration == 1:
            fault()
        return SCORE(self, structures, prompts)

    return score


FAULTS = {
    "dies": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hangs": lambda: time.sleep(1000),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGINT": lambda: os.kill(os.getpid(), signal.SIGINT),
}

rank, _, fault = sys.argv[1].partition(":")
if os.environ["RANK"] == rank:
    if fault == "nan":
        NFT.loss = loss
    else:
        DummyReward.score = faulty(FAULTS[fault])
main(["train", *sys.argv[2:]])
