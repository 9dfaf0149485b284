"""Molecules: EDM backbones, GFN2-xTB, RDKit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import isnan
from pathlib import Path

from atomrl.checkpoints.backbone import Backbone, backbone_of
from atomrl.checkpoints.stored import Stored
from atomrl.chemistry.rdkit import MoleculeChecker
from atomrl.config import MoleculeConfig
from atomrl.core.protocols import Reward
from atomrl.core.records import Structures
from atomrl.core.stages import Stage
from atomrl.domains.base import Domain
from atomrl.domains.molecule_panel import MoleculePanel
from atomrl.evaluation.monitor import MoleculeMonitor
from atomrl.export.molecules import Annotated, write_extxyz, write_sdf
from atomrl.force_fields.xtb import XTBForceField
from atomrl.measures.forces import reference_energies
from atomrl.policies.molecule import element_numbers
from atomrl.rewards.dummy import DummyReward
from atomrl.rewards.force_energy import ForceEnergyReward, atom_references, force_energy_stages
from atomrl.util.errors import UserError

log = logging.getLogger(__name__)

REWARDED = {
    "force": ("rms_force_median", "rms_force_mean"),
    "energy": ("energy_per_atom_median", "energy_per_atom_mean"),
}
"""Metrics that a reward channel pays for."""

STABILITY = ("atom_stability", "molecule_stability")
"""Metrics that the stability and valence terms pay for, in the channel that they are in."""


class MoleculeDomain(Domain[Backbone, MoleculeConfig]):
    """See `base.Domain`."""

    name = "molecules"
    noun = "molecules"
    formats = ("extxyz", "sdf")
    time_step = 100

    def load(self, stored: Stored, config: MoleculeConfig) -> Backbone:
        """The backbone."""
        return backbone_of(stored)

    def reward(self, config: MoleculeConfig, model: Backbone) -> Reward:
        """Forces and energies, or the dummy; warns of stability terms that nothing learns from.

        Raises:
            UserError: the force field, or the atoms' reference energies, do not know one of the backbone's elements.
        """
        section = config.reward
        if section.type == "dummy":
            return DummyReward()
        force_field = XTBForceField(section.workers, section.timeout, section.max_iterations)
        network = model.network.config
        unknown = [
            symbol
            for symbol, number in zip(network.elements, element_numbers(network).tolist(), strict=True)
            if number not in force_field.elements
        ]
        if unknown:
            raise UserError(f"reward.type={section.type} does not know the backbone's elements {', '.join(unknown)}")
        if section.use_energy and (references := atom_references(section)) is not None:
            energies = reference_energies(element_numbers(network)[:, None], references).tolist()
            if missing := [symbol for symbol, energy in zip(network.elements, energies, strict=True) if isnan(energy)]:
                raise UserError(
                    f"reward.energy_atom_refs lacks the backbone's elements {', '.join(missing)}, and their molecules "
                    "would have no energy: add them, in eV, or give xtb or null"
                )
        if section.pays_stability and not config.channel_weights[section.stability_home]:
            log.warning(
                "stability and valence are scored, but not learned: they are in the channel %s, and "
                "train.%s_adv_weight=0",
                *(section.stability_home,) * 2,
            )
        return ForceEnergyReward(force_field, section)

    def stages(self, config: MoleculeConfig) -> tuple[Stage, ...]:
        """Gates, stability in the force channel, the total."""
        return () if config.reward.type == "dummy" else force_energy_stages(config.reward)

    def channel_weights(self, config: MoleculeConfig, reward: Reward) -> Mapping[str, float]:
        """As the configuration says, of the channels that there are."""
        return config.channel_weights

    def monitor(self, config: MoleculeConfig) -> MoleculeMonitor:
        """Stability, elements, RDKit."""
        return MoleculeMonitor(config.log.rdkit)

    def panel(self, config: MoleculeConfig, model: Backbone) -> MoleculePanel:
        """GFN2-xTB and RDKit."""
        return MoleculePanel(config.reward, config.reward.workers, config.reward.timeout)

    def rewarded(self, config: MoleculeConfig) -> set[str]:
        """By channel weight; stability where one of its terms has a weight too."""
        reward, weights = config.reward, config.channel_weights
        if reward.type == "dummy":
            return set()
        paid = {name for channel, names in REWARDED.items() if weights.get(channel, 0) > 0 for name in names}
        return paid | (set(STABILITY) if reward.pays_stability and weights[reward.stability_home] > 0 else set())

    def export(self, path: Path, structures: Structures) -> None:
        """Extended XYZ or SDF, with RDKit's verdicts."""
        with MoleculeChecker() as checker:
            annotated = Annotated(
                structures, [f"{row:05d}" for row in range(len(structures))], checker.check(structures)
            )
        if path.suffix == ".sdf":
            write_sdf(path, annotated)
        else:
            write_extxyz(path, annotated)
