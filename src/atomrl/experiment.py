"""From a configuration to the objects of a run."""

from __future__ import annotations

import os
from dataclasses import asdict

import torch

from atomrl.checkpoints.backbone import Backbone, load_backbone
from atomrl.config import Config, RewardSection
from atomrl.errors import UserError
from atomrl.force_fields.xtb import XTBForceField
from atomrl.metrics.monitor import MoleculeMonitor
from atomrl.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.policies.molecule import MoleculePolicy, element_numbers
from atomrl.prompts import PromptPlan, SizeDistribution
from atomrl.protocols import Reward
from atomrl.rewards.dummy import DummyReward
from atomrl.rewards.force_energy import ForceEnergyReward
from atomrl.rollout import RolloutConfig
from atomrl.training.rl_module import RLModule


def build_module(config: Config) -> tuple[RLModule, Backbone]:
    """The module of a run, and the backbone it starts from; workers start at the first scoring.

    Raises:
        UserError: the backbone cannot be loaded, or the reward does not know one of its elements.
    """
    backbone = load_backbone(config.model.backbone)
    policy = MoleculePolicy(backbone.network)
    policy.transitions(config.model.time_step)  # refuses a walk that the backbone cannot take
    reward = build_reward(config.reward, backbone)
    module = RLModule(
        policy=policy,
        plan=build_plan(config, backbone),
        reward=reward,
        objective=build_objective(config),
        sampling=build_sampling(config),
        config=config.train,
        total_steps=config.train.total_steps or config.dataloader.epoches,
        monitor=MoleculeMonitor(config.log.rdkit),
        card={
            "backbone": asdict(backbone.network.config),
            "sizes": {str(size): count for size, count in backbone.sizes.items()},
            "origin": backbone.origin,
        },
    )
    return module, backbone


def build_reward(section: RewardSection, backbone: Backbone) -> Reward:
    """The reward that a configuration names."""
    if section.type == "dummy":
        return DummyReward()
    workers = section.workers or os.cpu_count() or 1
    force_field = XTBForceField(workers, section.timeout, section.max_iterations)
    unknown = [
        symbol
        for symbol, number in zip(
            backbone.network.config.elements, element_numbers(backbone.network.config).tolist(), strict=True
        )
        if number not in force_field.elements
    ]
    if unknown:
        raise UserError(f"reward.type={section.type} does not know the backbone's elements {', '.join(unknown)}")
    return ForceEnergyReward(force_field, section)


def build_objective(config: Config) -> FedGRPO:
    """FED-GRPO with a configuration's weights."""
    train = config.train
    return FedGRPO(
        FedGRPOConfig(
            channel_weights=train.channel_weights,
            clip_advantage_value=train.clip_advantage_value,
            clip_range=train.clip_range,
            kl_penalty_weight=train.kl_penalty_weight,
            step_weighting=train.step_weighting,
            failed=train.failed,
        )
    )


def build_plan(config: Config, backbone: Backbone) -> PromptPlan:
    """Prompts from the backbone's size histogram, re-weighted as the configuration says."""
    loader = config.dataloader
    sizes = SizeDistribution(backbone.sizes).focused(
        loader.nodes_dist_focus_min, loader.nodes_dist_focus_max, loader.nodes_dist_focus_multiplier
    )
    return PromptPlan(sizes, loader.sample_group_size, loader.each_prompt_sample, config.seed)


def build_sampling(config: Config) -> RolloutConfig:
    """How a run samples."""
    return RolloutConfig(
        time_step=config.model.time_step,
        micro_batch_size=config.dataloader.micro_batch_size,
        share_initial_noise=config.model.share_initial_noise,
        train_steps=config.train.train_steps,
        train_min_time=config.train.train_min_time,
        train_max_time=config.train.train_max_time,
        log_prob_reduction=config.train.log_prob_reduction,
    )


def choose_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda, but torch sees no GPU: use device=auto or install a CUDA build of torch")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")
