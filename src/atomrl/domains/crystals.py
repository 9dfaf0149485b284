"""Crystals: latent diffusion backbones, CHGNet and its hull, pymatgen's matcher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from atomrl.checkpoints.crystal import CrystalBackbone, crystal_backbone_of
from atomrl.checkpoints.stored import Stored
from atomrl.chemistry.crystal_export import AnnotatedCrystals, write_cif, write_extxyz
from atomrl.chemistry.crystals import check_cells, compositions, readable_formula
from atomrl.config import CrystalConfig
from atomrl.domains.base import Domain
from atomrl.domains.crystal_judges import CrystalJudges
from atomrl.domains.crystal_panel import CrystalPanel
from atomrl.metrics.crystal_monitor import CrystalMonitor
from atomrl.policies.crystal import Sampling
from atomrl.protocols import Reward
from atomrl.records import Structures
from atomrl.rewards.build import build_components
from atomrl.rewards.dummy import DummyReward
from atomrl.rewards.reinforce import ReinforceReward

REWARDED = {
    "creativity": {"unique", "novel"},
    "energy": {"e_above_hull_median", "e_above_hull_mean", "metastable", "stable", "evaluation_failures"},
    "structure_diversity": {"structure_diversity"},
    "composition_diversity": {"composition_diversity"},
}
"""Metrics that a component pays for."""

TOGETHER = {"msun", "sun", "msun_no_compound", "sun_no_compound"}
"""Metrics that creativity or energy pay for."""


class CrystalDomain(Domain[CrystalBackbone, CrystalConfig]):
    """See `base.Domain`."""

    name = "crystals"
    noun = "crystals"
    formats = ("extxyz", "cif")
    time_step = 50

    def default_config(self) -> CrystalConfig:
        """The defaults; they name no component."""
        return CrystalConfig()

    def load(self, stored: Stored, config: CrystalConfig) -> CrystalBackbone:
        """The backbone, with the sampler that the configuration names."""
        model = config.model
        sampling = Sampling(model.sampler, model.eta, model.guidance_scale)
        return replace(crystal_backbone_of(stored), sampling=sampling)

    def reward(self, config: CrystalConfig, model: CrystalBackbone) -> Reward:
        """The sum of components, with the providers of the metrics that they read; or the dummy.

        Raises:
            UserError: a component cannot be built, or the reference set or its hull is not there.
        """
        section = config.reward
        if section.type == "dummy":
            return DummyReward()
        components = build_components(section.components)
        reward = ReinforceReward(
            components, config.train.reward_normalize_fn, config.train.reward_eps, section.reference_dataset
        )
        if reward.missing_metrics:
            judges = CrystalJudges(section, model.vae)
            reward.provide(*judges.providers(reward.missing_metrics))
        return reward

    def channel_weights(self, config: CrystalConfig, reward: Reward) -> Mapping[str, float]:
        """Each component counts as its own weight says; of the dummy, compactness alone."""
        return dict.fromkeys(reward.names, 1.0) if isinstance(reward, ReinforceReward) else {"force": 1.0}

    def monitor(self, config: CrystalConfig) -> CrystalMonitor:
        """Cells, compositions, elements."""
        return CrystalMonitor()

    def panel(self, config: CrystalConfig, model: CrystalBackbone) -> CrystalPanel:
        """Profile `mp20-2025`, with the run's force field, reference set and hull."""
        return CrystalPanel(
            CrystalJudges(config.reward, model.vae),
            relaxed=config.evaluation.relaxed,
            second_judge=config.evaluation.second_judge,
            reward=lambda: self.reward(config, model),
            batch=config.dataloader.sample_group_size * config.dataloader.each_prompt_sample,
        )

    def rewarded(self, config: CrystalConfig) -> set[str]:
        """By component."""
        if config.reward.type == "dummy":
            return set()
        names = [component.name for component in build_components(config.reward.components)]
        paid = {metric for name in names for metric in REWARDED.get(name, set())}
        return paid | (TOGETHER if {"creativity", "energy"} & set(names) else set())

    def export(self, path: Path, structures: Structures) -> None:
        """Extended XYZ or CIF, with formulas and what is wrong with a cell."""
        structures = structures.to(torch.device("cpu"))
        verdicts = [
            {"formula": readable_formula(formula), "cell": reason or "sound"}
            for formula, reason in zip(compositions(structures), check_cells(structures), strict=True)
        ]
        annotated = AnnotatedCrystals(structures, [f"{row:05d}" for row in range(len(structures))], verdicts)
        if path.suffix == ".cif":
            written = write_cif(path, annotated)
            if written < len(structures):
                print(f"{len(structures) - written} samples have no CIF (no volume or not finite): see an .extxyz file")
        else:
            write_extxyz(path, annotated)
