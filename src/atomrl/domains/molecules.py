"""Molecules: EDM backbones, GFN2-xTB, RDKit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from torch import Tensor

from atomrl.checkpoints.backbone import Backbone, backbone_of, save_backbone
from atomrl.checkpoints.given_policy import GivenModel, stored_form
from atomrl.checkpoints.regressor import load_regressor, property_of
from atomrl.checkpoints.stored import Stored
from atomrl.chemistry.bonds import valence
from atomrl.chemistry.known_smiles import read_known
from atomrl.chemistry.rdkit import MoleculeChecker
from atomrl.config import MoleculeConfig
from atomrl.core.protocols import ForceField, Model, Reward
from atomrl.core.records import Structures
from atomrl.core.stages import Stage
from atomrl.domains.base import Domain
from atomrl.domains.molecule_panel import MoleculePanel
from atomrl.domains.molecule_reward import (
    force_field_settings,
    gfn2_force_field,
    may_give_forces,
    molecule_reward,
    molecule_stages,
    own_components,
    own_weights,
)
from atomrl.evaluation.asked_values import AskedJudge, asked_metric
from atomrl.evaluation.monitor import MoleculeMonitor
from atomrl.export.exporter import Cell, Exporter, Picture, Written
from atomrl.export.molecule_picture import draw
from atomrl.export.molecules import SDF_LIMIT, Annotated, extxyz_text, sdf_text, verdicts
from atomrl.force_fields.base import ForceFieldSpec
from atomrl.force_fields.build import check_force_field
from atomrl.force_fields.computed_once import ComputedOnce
from atomrl.measures.measure import component_metric
from atomrl.rewards.base import unique_names
from atomrl.rewards.build import build_components, check_components
from atomrl.rewards.components import PredictorReward
from atomrl.rewards.filter import Filter
from atomrl.rewards.filter_options import FilterOptions
from atomrl.rewards.novelty import NoveltyReward
from atomrl.rewards.whole import whole_reward
from atomrl.util.errors import UserError
from atomrl.util.registry import registered
from atomrl.workers.executor import Workers
from atomrl.workers.local import as_workers

log = logging.getLogger(__name__)

REWARDED = {
    "force": ("rms_force_median", "rms_force_mean"),
    "energy": ("energy_per_atom_median", "energy_per_atom_mean"),
}
"""Metrics that a reward channel pays for."""

STABILITY = ("atom_stability", "molecule_stability")
"""Metrics that the stability and valence terms pay for, in the channel that they are in."""


class MoleculeDomain(Domain[Backbone | GivenModel, MoleculeConfig]):
    """See `base.Domain`."""

    name = "molecules"
    noun = "molecules"
    formats = ("extxyz", "sdf")
    time_step = 100
    demo = "demo"
    accepted = "stable by the bond table"
    card_entry = "backbone"
    shown = ("reward", "molecule_stability", "atom_stability")

    def load(self, stored: Stored, config: MoleculeConfig) -> Backbone | GivenModel:
        """The backbone.

        Raises:
            UserError: as `backbone_of` and `adopt`.
        """
        return self.adopt(backbone_of(stored), config)

    def adopt(self, model: Model, config: MoleculeConfig) -> Backbone | GivenModel:
        """The backbone as it is.

        Raises:
            UserError: it is none of molecules, or is conditional and says nothing about the values of a property.
        """
        if isinstance(model, GivenModel):
            return model
        if not isinstance(model, Backbone):
            raise UserError(f"{model.origin} is not a model of molecules: give one, or a configuration of crystals")
        conditioning = model.conditioning
        lacking = (
            [] if conditioning is None else [name for name in conditioning.names if name not in conditioning.known]
        )
        if lacking:
            raise UserError(
                f"{model.origin} is conditioned on {', '.join(lacking)} and does not say how its values are "
                "distributed, which it takes to draw or to scale one: `atomrl import edm FOLDER --properties --output "
                "NEW` adds that"
            )
        return model

    def check_code(self, config: MoleculeConfig) -> None:
        """Of components and force field."""
        check_components(config.reward.components)
        check_force_field(config.reward.force_field)

    def save(self, folder: Path, model: Backbone | GivenModel, card: Mapping[str, Any]) -> None:
        """See `save_backbone`."""
        backbone = stored_form(model, Backbone)
        save_backbone(folder, backbone.network, backbone.sizes, card, backbone.conditioning)

    def reward(self, config: MoleculeConfig, model: Backbone | GivenModel, workers: Workers | None = None) -> Reward:
        """See `molecule_reward`."""
        return molecule_reward(config, model, workers)

    def may_give_forces(self, reward: Reward) -> bool:
        """See `molecule_reward.may_give_forces`."""
        return may_give_forces(reward)

    def stages(self, config: MoleculeConfig, reward: Reward) -> tuple[Stage, ...]:
        """Gates, stability in the force channel, the total."""
        return molecule_stages(config, reward)

    def filters(self, config: MoleculeConfig, workers: Workers | None = None) -> tuple[Stage, ...]:
        """By RDKit's names, if the section `filters` asks for anything."""
        if not config.filters.used:
            return ()
        own = as_workers(workers or config.reward.workers)
        known = read_known(config.dataloader.known, own)
        return (Filter(config.filters, MoleculeChecker(own, config.reward.timeout), known),)

    def channel_weights(self, config: MoleculeConfig, reward: Reward) -> Mapping[str, float]:
        """As the configuration says, of the channels that there are, and the weights of the user's components."""
        weights = {**config.channel_weights, **own_weights(reward)}
        if not any(weights.values()):
            raise UserError("reward.components: the weight of each is 0, and nothing would be learned; raise one")
        return weights

    def monitor(
        self, config: MoleculeConfig, model: Backbone | GivenModel, workers: Workers | None = None
    ) -> MoleculeMonitor:
        """Stability, elements, RDKit."""
        elements = model.network.config.elements if isinstance(model, Backbone) else ()
        return MoleculeMonitor(config.log.rdkit, as_workers(workers or config.reward.workers).limited(1), elements)

    def panel(
        self, config: MoleculeConfig, model: Backbone | GivenModel, workers: Workers | None = None
    ) -> MoleculePanel:
        """GFN2-xTB and RDKit, and the user's components, which get rows of their own."""
        section = config.reward
        by_panel = (section.by_gfn2 and not section.own) or (section.built_in == "dummy" and not section.own)
        workers = as_workers(workers or section.workers)
        gfn2 = ComputedOnce(gfn2_force_field(section, workers)) if section.own else None
        return MoleculePanel(
            section,
            workers,
            own=own_components(section, known=config.dataloader.known, gfn2=gfn2, conditioning=model.conditioning),
            force_field=gfn2,
            asked=_asked_judge(config, model),
            relaxed=config.evaluation.relaxed,
            poses=config.evaluation.posebusters,
            second=_second_judge(config),
            known=config.dataloader.known,
            profile=config.evaluation.profile,
            training=None if by_panel else (lambda: self._with_stages(config, model, workers)),
        )

    def _with_stages(
        self, config: MoleculeConfig, model: Backbone | GivenModel, workers: Workers | None
    ) -> tuple[Reward, Sequence[Stage]]:
        """The reward and its stages."""
        reward = self.reward(config, model, workers)
        return reward, self.stages(config, reward)

    def rewarded(self, config: MoleculeConfig) -> set[str]:
        """By channel weight; stability where one of its terms has a weight too; the user's components; the filter.

        Forces and energies in the table are by GFN2-xTB: another force field pays for them only as far as both agree.
        """
        reward, weights = config.reward, config.channel_weights
        if (whole := whole_reward(reward.own)) is not None:
            with closing(whole):
                named = {component_metric(name) for name, weight in whole.weights.items() if weight > 0}
                return named | _penalised(config.filters)
        parts = build_components(reward.own) if reward.own else []
        paying = {name: part for name, part in zip(unique_names(parts), parts, strict=True) if part.weight > 0}
        paid = {component_metric(name) for name in paying} | _penalised(config.filters)
        if novelties := [part for part in paying.values() if isinstance(part, NoveltyReward)]:
            paid |= {"novelty", "valid_unique_novel"}
        if any(part.compares for part in novelties):
            paid |= {"uniqueness", "validity_x_uniqueness"}
        predicted = {part.target_name for part in paying.values() if isinstance(part, PredictorReward)}
        if predicted and config.evaluation.regressor is not None:
            paid |= {asked_metric(name) for name in predicted & {property_of(config.evaluation.regressor)}}
        if reward.built_in in (None, "dummy"):
            return paid
        if reward.by_gfn2:
            paid |= {name for channel, names in REWARDED.items() if weights.get(channel, 0) > 0 for name in names}
        return paid | (set(STABILITY) if reward.pays_stability and weights[reward.stability_home] > 0 else set())

    def accepts(self, structures: Structures) -> Tensor:
        """The stable ones, by the bond table."""
        return valence(structures.numbers, structures.positions, structures.mask).molecule_stable

    def exporter(self, ending: str, workers: Workers | None = None) -> Exporter:
        """Extended XYZ or SDF, with RDKit's verdicts."""
        return MoleculeExporter(ending, workers)

    def picture(self, structures: Structures, captions: Sequence[str]) -> Picture:
        """See `molecule_picture.draw`."""
        return draw(structures, captions)


class MoleculeExporter(Exporter):
    """Writes molecules with RDKit's verdicts; its workers start with the first batch.

    Args:
        ending: `extxyz` or `sdf`.
        workers: for RDKit, one is enough; if None a local one.
    """

    def __init__(self, ending: str, workers: Workers | None = None) -> None:
        self._sdf, self._checker = ending == "sdf", MoleculeChecker(as_workers(workers or 1).limited(1))
        self.cannot_hold = f"not finite, or beyond {SDF_LIMIT:g} Å" if self._sdf else ""

    def about(self, structures: Structures) -> list[dict[str, Cell]]:
        """See `Exporter`."""
        return verdicts(self._annotated(structures, [""] * len(structures)))

    def text(self, structures: Structures, ids: Sequence[str]) -> Written:
        """See `Exporter`."""
        annotated = self._annotated(structures, ids)
        return sdf_text(annotated) if self._sdf else extxyz_text(annotated)

    def _annotated(self, structures: Structures, ids: Sequence[str]) -> Annotated:
        """Samples with what RDKit says."""
        return Annotated(structures, ids, self._checker.check(structures))

    def close(self) -> None:
        """End the workers."""
        self._checker.close()


def _penalised(filters: FilterOptions) -> set[str]:
    """Metrics that the filter's penalties pay for, in every channel."""
    known = filters.enable_penalty and filters.penalty_scale > 0
    scales = {
        "validity": known or filters.invalid_penalty_scale,
        "novelty": known,
        "uniqueness": filters.duplicate_penalty_scale,
    }
    paid = {name for name, scale in scales.items() if scale}
    return paid | ({"validity_x_uniqueness", "valid_unique_novel"} if paid else set())


def _asked_judge(config: MoleculeConfig, model: Backbone | GivenModel) -> AskedJudge | None:
    """What compares samples with what they were asked for, if a regressor is named."""
    chosen = config.evaluation.regressor
    if chosen is None:
        return None
    return AskedJudge(load_regressor(chosen), f"evaluation.regressor={chosen}", model.conditioning)


def _second_judge(config: MoleculeConfig) -> tuple[str, ForceField] | None:
    """The name and the force field of the second judge, if one is asked for."""
    chosen = config.evaluation.second_judge
    if chosen is None:
        return None
    spec: ForceFieldSpec = registered("atomrl.force_fields", chosen, "evaluation.second_judge")
    return spec.name, spec.make(force_field_settings(config))


SPEC = MoleculeDomain
