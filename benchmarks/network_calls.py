"""How often a training calls its network for each sample that it scores: counted, not computed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import torch
from torch import nn

from atomrl.config import load_config
from atomrl.core.collective import Alone
from atomrl.core.iteration import iterate
from atomrl.core.update import trainable_parameters
from atomrl.training.rl_module import build_module

SMALL = ("dataloader.sample_group_size=2", "dataloader.each_prompt_sample=2", "reward.workers=1", "device=cpu")
"""An iteration of four samples: what each costs does not depend on how many there are."""


def calls_per_sample(config: str, overrides: Sequence[str]) -> float:
    """Forward passes of the network per scored sample, in a configuration's rollout and update.

    A backward pass, not counted, costs about as much as two more of those that it goes through.
    """
    counted = 0

    def count(network: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal counted
        counted += len(inputs[0])

    module, _ = build_module(load_config(config, [*overrides, *SMALL]))
    with closing(module):
        # Copies of the network, an initial or an old policy, are made by `build_module`: each has a hook of its own.
        models = {getattr(module.policy, name) for name in ("current", "initial", "followed")} - {None}
        for model in models:
            model.register_forward_pre_hook(count)
        optimizer = torch.optim.SGD(trainable_parameters(module.policy), lr=0.0)
        prompts = module.plan.prompts(0)
        iterate(
            module.policy, prompts, module.scorer, module.stages, module.objective, optimizer, module.iteration, Alone()
        )
    return counted / len(prompts)
