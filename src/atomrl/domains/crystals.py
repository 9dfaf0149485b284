"""Crystals: latent diffusion backbones, CHGNet and its hull, pymatgen's matcher."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atomrl.checkpoints.crystal import CrystalBackbone, crystal_backbone_of, save_crystal_backbone
from atomrl.checkpoints.given_policy import GivenModel, stored_form
from atomrl.checkpoints.stored import Stored, read_stored
from atomrl.config import CrystalConfig
from atomrl.config.crystals import CrystalModel, WantedProperty
from atomrl.core.conditioning import Conditioning
from atomrl.core.protocols import Model, Reward
from atomrl.core.records import RewardTable, Structures
from atomrl.core.stages import SampleContext, Stage
from atomrl.domains.base import Domain
from atomrl.domains.crystal_judges import CrystalJudges, asks_force_field
from atomrl.domains.crystal_panel import CrystalPanel
from atomrl.evaluation.crystal_monitor import CrystalMonitor
from atomrl.evaluation.wanted import WantedJudge, wanted_metric
from atomrl.export.crystal_picture import draw
from atomrl.export.crystals import AnnotatedCrystals, cif_text, extxyz_text
from atomrl.export.exporter import Cell, Exporter, Picture, Written
from atomrl.force_fields.base import CRYSTALS
from atomrl.force_fields.build import check_force_field
from atomrl.measures.crystal_verdicts import METASTABLE, TOLERANCE
from atomrl.measures.measure import component_metric
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.networks.lora import adapt
from atomrl.policies.crystal import Sampling
from atomrl.rewards.asked import require_asked
from atomrl.rewards.base import unique_names
from atomrl.rewards.build import build_components, check_components
from atomrl.rewards.components import (
    CompositionDiversityReward,
    CreativityReward,
    EnergyReward,
    RewardComponent,
    StructureDiversityReward,
)
from atomrl.rewards.dummy import DummyReward
from atomrl.rewards.fresh_formula import FreshFormulaReward
from atomrl.rewards.metastability import MetastabilityReward
from atomrl.rewards.novelty import NoveltyReward
from atomrl.rewards.pure_elements import check_compounds
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.rewards.whole import WholeReward, whole_reward
from atomrl.structures.crystals import check_cells, compositions, readable_formula
from atomrl.util.errors import UserError, hinted
from atomrl.workers.executor import Workers

log = logging.getLogger(__name__)

TOGETHER = {"msun", "sun", "msun_no_compound", "sun_no_compound"}
"""Metrics that creativity, novelty or energy pay for."""

MSUN_READS = {"unique", "novel", "e_above_hull", "hull_holds_compound"}
"""Diagnostics of a reward."""

LOW_ENERGY = {"e_above_hull_median", "e_above_hull_mean", "metastable", "stable", "evaluation_failures", *TOGETHER}
"""Metrics that a low energy above the hull pays for."""

REWARDED: Mapping[type[RewardComponent], set[str]] = {
    CreativityReward: {"unique", "novel", *TOGETHER},
    NoveltyReward: {"novel", *TOGETHER},
    EnergyReward: LOW_ENERGY,
    MetastabilityReward: {"unique", "novel", *LOW_ENERGY},
    StructureDiversityReward: {"structure_diversity"},
    CompositionDiversityReward: {"composition_diversity"},
    FreshFormulaReward: {"composition_diversity"},
}
"""Metrics of the profile that a component pays for; any other component gets a row of its own."""


def count_msun(table: RewardTable, samples: SampleContext) -> RewardTable:
    """A stage: the diagnostic `msun`, 1 for a metastable, unique and novel sample; where the reward asks for all of it.

    In a system whose hull holds no compound it is 0, as in an evaluation.
    """
    numbers = table.diagnostics
    if MSUN_READS - numbers.keys():
        return table
    low = numbers["e_above_hull"] <= METASTABLE + TOLERANCE  # False for NaN
    held = low & (numbers["unique"] > 0) & (numbers["novel"] > 0) & (numbers["hull_holds_compound"] > 0)
    return replace(table, diagnostics={**numbers, "msun": held.double()})


class CrystalDomain(Domain[CrystalBackbone | GivenModel, CrystalConfig]):
    """See `base.Domain`."""

    name = "crystals"
    noun = "crystals"
    formats = ("extxyz", "cif")
    time_step = 50
    demo = "experiment/prototypes/rl_dng"
    accepted = "of a sound cell"
    card_entry = "denoiser"
    shown = ("raw_reward", "unique", "novel")

    def load(self, stored: Stored, config: CrystalConfig) -> CrystalBackbone | GivenModel:
        """The backbone, with the sampler that the configuration names.

        Raises:
            UserError: see `base.Domain`; or as `adopt`.
        """
        return self.adopt(crystal_backbone_of(stored), config)

    def adopt(self, model: Model, config: CrystalConfig) -> CrystalBackbone | GivenModel:
        """The backbone, with the sampler that the configuration names; a policy that was given samples as it does.

        Raises:
            UserError: it is none of crystals; or it is unconditional, and the configuration has a scale of guidance; or
                it would be guided, and was never trained without its conditions.
        """
        if isinstance(model, GivenModel):
            return model
        if not isinstance(model, CrystalBackbone):
            raise UserError(f"{model.origin} is not a model of crystals: give one, or a configuration of molecules")
        section, sampling = config.model, Sampling(config.model.sampler, config.model.eta)
        if section.guidance_scale is not None:
            if model.conditions is None:
                raise UserError(
                    f"model.guidance_scale={section.guidance_scale:g}: {model.origin} is not conditional, and guidance "
                    "would change nothing; leave it out, or give a conditional model"
                )
            sampling = replace(sampling, guidance_scale=section.guidance_scale)
        if model.conditions is not None and not model.conditions.drop_prob and sampling.guidance_scale != 1:
            raise UserError(
                f"{model.origin} was trained with drop_prob=0, without its conditions at most where they are unknown, "
                "and guidance compares with that: set model.guidance_scale=1, or train it with a drop_prob"
            )
        return replace(model, sampling=sampling)

    def beside_a_run(self, config: CrystalConfig, stored: Stored) -> CrystalConfig:
        """An unconditional model has no guidance, whatever the run's has."""
        if stored.card.get("conditions"):
            return config
        return config.changed(model=config.model.changed(guidance_scale=None))

    def check_code(self, config: CrystalConfig) -> None:
        """Of components, force field and second judge."""
        check_components(config.reward.components)
        check_force_field(config.reward.force_field, CRYSTALS)
        check_force_field(config.evaluation.second_judge, CRYSTALS, "evaluation.second_judge")

    def save(self, folder: Path, model: CrystalBackbone | GivenModel, card: Mapping[str, Any]) -> None:
        """See `save_crystal_backbone`."""
        save_crystal_backbone(folder, stored_form(model, CrystalBackbone), card)

    def trained(self, config: CrystalConfig, model: CrystalBackbone | GivenModel) -> CrystalBackbone | GivenModel:
        """With adapters, if the configuration asks for some.

        Raises:
            UserError: as `adapt`; or the model is a policy that a program gave.
        """
        options = config.model.lora
        if not options.rank:
            return model
        if not isinstance(model, CrystalBackbone):
            raise UserError(
                f"model.lora.rank={options.rank}: {model.origin} is a policy of your own, and only a crystal backbone "
                "can have adapters: leave them out"
            )
        with hinted(" (model.lora)"):
            adapt(model.denoiser, options, config.seed)
        return replace(model, lora=options)

    def reward(
        self, config: CrystalConfig, model: CrystalBackbone | GivenModel, workers: Workers | None = None
    ) -> Reward:
        """The sum of components, with the providers of the metrics that they read; or the dummy.

        Raises:
            UserError: a component cannot be built, all of them have the weight 0, or the reference set or its hull is
                not there.
        """
        if config.reward.type == "dummy":
            return DummyReward()
        if (whole := whole_reward(config.reward.components)) is not None:
            if config.reward.combine != "sum" or not config.reward.pure_elements:
                log.warning(
                    "reward.combine=%s and reward.pure_elements=%s change nothing: a whole reward has no components",
                    config.reward.combine,
                    str(config.reward.pure_elements).lower(),
                )
            _warn_of_unread_force_field(config, ())
            return whole
        components = build_components(config.reward.components)
        if not any(component.weight for component in components):
            raise UserError("reward.components: the weight of each is 0, and nothing would be learned; raise one")
        _warn_of_unread_force_field(config, components)
        judges = CrystalJudges(config.reward, _vae(model), config.device, workers)
        reward = _summed(config, components, judges, model.conditioning, learned=True)
        require_asked(reward, model)
        return reward

    def stages(self, config: CrystalConfig, reward: Reward) -> tuple[Stage, ...]:
        """What the log counts; components are normalised over the batch where they are scored."""
        return (count_msun,)

    def filters(self, config: CrystalConfig, workers: Workers | None = None) -> tuple[Stage, ...]:
        """None: unique and novel crystals are rewarded by components."""
        return ()

    def channel_weights(self, config: CrystalConfig, reward: Reward) -> Mapping[str, float]:
        """Each component counts as its own weight says; of the dummy, compactness alone."""
        return reward.weights if isinstance(reward, ReinforceReward | WholeReward) else {"force": 1.0}

    def monitor(
        self, config: CrystalConfig, model: CrystalBackbone | GivenModel, workers: Workers | None = None
    ) -> CrystalMonitor:
        """Cells, compositions, elements."""
        return CrystalMonitor()

    def panel(
        self, config: CrystalConfig, model: CrystalBackbone | GivenModel, workers: Workers | None = None
    ) -> CrystalPanel:
        """Profile `mp20-2025`, by CHGNet, with the run's reference set."""
        judges = CrystalJudges(config.reward, _vae(model), config.device, workers)
        whole = None if config.reward.type == "dummy" else whole_reward(config.reward.components)
        own = [] if whole is not None else _own_components(config)
        return CrystalPanel(
            judges,
            relaxed=config.evaluation.relaxed,
            second_judge=config.evaluation.second_judge,
            mixed_valence=config.evaluation.mixed_valence,
            reward=lambda: self.reward(config, model, judges.workers),
            batch=config.dataloader.sample_group_size * config.dataloader.each_prompt_sample,
            own=_summed(config, own, judges, model.conditioning) if own else whole,
            wanted=_wanted(config.evaluation.wanted),
        )

    def rewarded(self, config: CrystalConfig) -> set[str]:
        """By each component whose weight is above 0."""
        if config.reward.type == "dummy":
            return set()
        if (whole := whole_reward(config.reward.components)) is not None:
            with closing(whole):
                return {component_metric(name) for name, weight in whole.weights.items() if weight > 0}
        components = build_components(config.reward.components)
        paying = [component for component in components if component.weight > 0]
        paid = {metric for component in paying for metric in _paid(component)}
        own = [component for component in components if not _paid(component)]
        rows = {name for name, component in zip(unique_names(own), own, strict=True) if component.weight > 0}
        pairs = zip(config.reward.components, components, strict=True)
        entries = [entry for entry, one in pairs if one.weight > 0 and isinstance(entry, Mapping)]
        predicted = {(str(entry.get("predictor")), entry.get("target_name")) for entry in entries}
        labels = zip(config.evaluation.wanted, _labels(config.evaluation.wanted), strict=True)
        sought = {wanted_metric(label) for one, label in labels if (one.predictor, one.name) in predicted}
        return paid | sought | {component_metric(name) for name in rows}

    def accepts(self, structures: Structures) -> Tensor:
        """Those with a sound cell: no overlap, no atom alone, no cell that is none."""
        return torch.tensor([reason is None for reason in check_cells(structures)], dtype=torch.bool)

    def exporter(self, ending: str, workers: Workers | None = None) -> Exporter:
        """Extended XYZ or CIF, with formulas and what is wrong with a cell."""
        return CrystalExporter(ending)

    def picture(self, structures: Structures, captions: Sequence[str]) -> Picture:
        """See `crystal_picture.draw`."""
        return draw(structures, captions)


class CrystalExporter(Exporter):
    """Writes crystals with their formulas and what is wrong with a cell.

    Args:
        ending: `extxyz` or `cif`.
    """

    def __init__(self, ending: str) -> None:
        self._cif = ending == "cif"
        self.cannot_hold = "not finite, no volume, two atoms at one place" if self._cif else ""

    def about(self, structures: Structures) -> list[dict[str, Cell]]:
        """See `Exporter`."""
        return [
            {"formula": readable_formula(formula), "cell": reason or "sound"}
            for formula, reason in zip(compositions(structures), check_cells(structures), strict=True)
        ]

    def text(self, structures: Structures, ids: Sequence[str]) -> Written:
        """See `Exporter`."""
        structures = structures.to(torch.device("cpu"))
        annotated = AnnotatedCrystals(structures, ids, self.about(structures))
        return cif_text(annotated) if self._cif else extxyz_text(annotated)


def _vae(model: CrystalBackbone | GivenModel) -> CrystalVAE:
    """In whose features diversity is measured: the model's; of a policy that was given, the shipped one's."""
    if isinstance(model, CrystalBackbone):
        return model.vae
    return crystal_backbone_of(read_stored(CrystalModel().backbone)).vae


def _summed(
    config: CrystalConfig,
    components: Sequence[RewardComponent],
    judges: CrystalJudges,
    conditioning: Conditioning | None,
    learned: bool = False,
) -> ReinforceReward:
    """A reward of these components, with providers of what they read, and what prompts ask for.

    `learned`: combined and guarded as configured.
    """
    train, section = config.train, config.reward
    reward = ReinforceReward(
        components,
        train.reward_normalize_fn,
        train.reward_eps,
        section.reference_dataset,
        check=check_compounds if learned and not section.pure_elements else None,
        combine=section.combine if learned else "sum",
        conditioning=conditioning,
    )
    if reward.missing_metrics:
        reward.provide(*judges.providers(reward.missing_metrics))
    return reward


def _warn_of_unread_force_field(config: CrystalConfig, components: Sequence[RewardComponent]) -> None:
    """Warn of a force field that none of these components asks."""
    read = {name for component in components for name in component.metrics}
    if config.reward.force_field is not None and not any(asks_force_field(name) for name in read):
        log.warning("reward.force_field changes nothing: no component of the reward reads an energy or the hull")


def _paid(component: RewardComponent) -> set[str]:
    """Metrics of the profile that a component pays for."""
    paid = {metric for kind, metrics in REWARDED.items() if isinstance(component, kind) for metric in metrics}
    if isinstance(component, EnergyReward):
        paid |= set(component.only)
    elif isinstance(component, NoveltyReward) and component.compares:
        paid.add("unique")
    return paid


def _own_components(config: CrystalConfig) -> list[RewardComponent]:
    """Components that pay for no metric of the profile: the user's, and predicted properties."""
    if config.reward.type == "dummy" or not config.reward.components:
        return []
    return [component for component in build_components(config.reward.components) if not _paid(component)]


def _wanted(properties: Sequence[WantedProperty]) -> tuple[WantedJudge, ...]:
    """A judge of each wanted property."""
    judges = []
    for one, label in zip(properties, _labels(properties), strict=True):
        bound, larger = (one.at_most, False) if one.at_most is not None else (one.at_least or 0.0, True)
        judges.append(WantedJudge(one.predictor, one.name, bound, larger, label))
    return tuple(judges)


def _labels(properties: Sequence[WantedProperty]) -> list[str]:
    """Their names; the second of a name, and further ones, with a number."""
    names = [one.name for one in properties]
    before = [names[:place].count(name) for place, name in enumerate(names)]
    return [f"{name}_{count + 1}" if count else name for name, count in zip(names, before, strict=True)]


SPEC = CrystalDomain
