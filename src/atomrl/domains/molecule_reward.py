"""The reward of molecules that a configuration describes: a built-in one, components of the user's, or both."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

from atomrl.checkpoints.backbone import Backbone
from atomrl.checkpoints.given_policy import GivenModel
from atomrl.chemistry.known_smiles import read_known
from atomrl.config.molecules import MoleculeConfig, MoleculeReward
from atomrl.core.conditioning import Conditioning
from atomrl.core.protocols import ForceField, Reward
from atomrl.core.stages import Stage, Total
from atomrl.force_fields.build import build_force_field
from atomrl.force_fields.computed_once import ComputedOnce
from atomrl.force_fields.xtb import XTBForceField
from atomrl.measures.forces import reference_energies
from atomrl.measures.molecule_names import MoleculeNamesProvider
from atomrl.measures.xtb_properties import GivesProperties, XTBPropertiesProvider
from atomrl.policies.molecule import element_numbers
from atomrl.rewards.asked import require_asked
from atomrl.rewards.build import build_components
from atomrl.rewards.dummy import DummyReward
from atomrl.rewards.force_energy import ForceEnergyReward, atom_references, force_energy_stages
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.rewards.together import Together
from atomrl.rewards.whole import WholeReward, whole_reward
from atomrl.structures.listing import MOLECULES
from atomrl.util.errors import UserError
from atomrl.workers.executor import Workers

log = logging.getLogger(__name__)


def molecule_reward(config: MoleculeConfig, model: Backbone | GivenModel, workers: Workers | None = None) -> Reward:
    """The reward; warns of stability terms that nothing learns from.

    Raises:
        UserError: a component or the force field cannot be built; the force field, or the atoms' reference energies, do
            not know one of the backbone's elements.
    """
    section = config.reward
    parts: list[Reward] = []
    gfn2 = ComputedOnce(gfn2_force_field(section, workers)) if section.by_gfn2 and section.own else None
    if section.built_in == "dummy":
        parts.append(DummyReward())
    elif section.built_in is not None:
        parts.append(_physics(config, model, gfn2 or _force_field(config, workers)))
    own = own_components(section, workers, config.dataloader.known, gfn2, model.conditioning)
    if isinstance(own, ReinforceReward):
        require_asked(own, model)
    if own is not None:
        parts.append(own)
    return parts[0] if len(parts) == 1 else Together(parts)


def own_components(
    section: MoleculeReward,
    workers: Workers | None = None,
    known: Path | None = None,
    gfn2: GivesProperties | None = None,
    conditioning: Conditioning | None = None,
) -> ReinforceReward | WholeReward | None:
    """The user's components as one reward, a channel each, which the objective weighs; None if there are none.

    A component that normalises over the batch needs all samples; the others score each sample as it comes. Properties
    by GFN2-xTB come from `gfn2`, which the built-in reward asks too, or from workers of their own. A whole reward of
    the user's stands alone.

    Raises:
        UserError: as `whole_reward` and `build_components`; a component reads a metric that nobody measures.
    """
    if not section.own:
        return None
    if (whole := whole_reward(section.components)) is not None:
        return whole
    reward = ReinforceReward(build_components(section.own), listing=MOLECULES, totals=False, conditioning=conditioning)
    provide_metrics(reward, section, workers, known, gfn2)
    if not reward.compares:
        reward.scope = "per_sample"
    return reward


def provide_metrics(
    reward: ReinforceReward,
    section: MoleculeReward,
    workers: Workers | None = None,
    known: Path | None = None,
    gfn2: GivesProperties | None = None,
) -> None:
    """Give a reward of molecules the metrics that its components read; arguments as of `own_components`.

    Raises:
        UserError: nobody measures one of them.
    """
    if set(reward.missing_metrics) & set(MoleculeNamesProvider.names):
        training = None if known is None else read_known(known, workers or section.workers)
        reward.provide(MoleculeNamesProvider(1 if workers is None else workers.limited(1), training))
    if set(reward.missing_metrics) & set(XTBPropertiesProvider.names):
        reward.provide(XTBPropertiesProvider(gfn2 or gfn2_force_field(section, workers)))
    if missing := reward.missing_metrics:
        names = sorted({*MoleculeNamesProvider.names, *XTBPropertiesProvider.names})
        raise UserError(
            f"nothing measures the metric {', '.join(missing)} of molecules: choose from {', '.join(names)}"
        )


def may_give_forces(reward: Reward) -> bool:
    """Whether the tables of a reward of `molecule_reward` have forces, or may have some: a whole one of the user's."""
    if isinstance(reward, Together):
        return any(may_give_forces(part) for part in reward.rewards)
    return isinstance(reward, ForceEnergyReward | WholeReward)


def own_weights(reward: Reward) -> Mapping[str, float]:
    """Weight of each of the user's components in a reward of `molecule_reward`, by the name of its channel."""
    if isinstance(reward, Together):
        return {name: weight for part in reward.rewards for name, weight in own_weights(part).items()}
    return reward.weights if isinstance(reward, ReinforceReward | WholeReward) else {}


def molecule_stages(config: MoleculeConfig, reward: Reward) -> tuple[Stage, ...]:
    """Gates, stability in the force channel, and the total, in which each component of the user's has its weight."""
    weights = own_weights(reward)
    if config.reward.built_in in (None, "dummy"):
        return (Total(weights),) if weights else ()
    return force_energy_stages(config.reward, weights)


def gfn2_force_field(section: MoleculeReward, workers: Workers | None) -> XTBForceField:
    """GFN2-xTB with the options of the reward."""
    return XTBForceField(workers or section.workers, section.timeout, section.max_iterations)


def _force_field(config: MoleculeConfig, workers: Workers | None) -> ForceField:
    """The force field that the configuration names."""
    chosen = config.reward.chosen_force_field
    assert chosen is not None
    return build_force_field(chosen, force_field_settings(config, workers))


def force_field_settings(config: MoleculeConfig, workers: Workers | None = None) -> Mapping[str, Any]:
    """What a force field is made of, see `ForceFieldSpec`."""
    return {**dict(config.reward), "workers": workers or config.reward.workers, "device": config.device}


def _physics(config: MoleculeConfig, model: Backbone | GivenModel, force_field: ForceField) -> ForceEnergyReward:
    """Forces and energies."""
    section = config.reward
    if not section.by_gfn2 and not section.use_energy and isinstance(section.energy_atom_refs, str):
        section = section.changed(energy_atom_refs=None)  # nobody learns from energies here, and these may be of GFN2
    reward = ForceEnergyReward(force_field, section)
    if isinstance(model, Backbone):  # a policy that a program gave does not say its elements
        _require_elements(section, reward, model)
    if section.pays_stability and not config.channel_weights[section.stability_home]:
        log.warning(
            "stability and valence are scored, but not learned: they are in the channel %s, and train.%s_adv_weight=0",
            *(section.stability_home,) * 2,
        )
    return reward


def _require_elements(section: MoleculeReward, reward: ForceEnergyReward, model: Backbone) -> None:
    """Raise UserError for a force field or references that lack one of the backbone's elements."""
    network = model.network.config
    numbers = element_numbers(network)
    pairs = list(zip(network.elements, numbers.tolist(), strict=True))
    if unknown := [symbol for symbol, number in pairs if number not in reward.force_field.elements]:
        raise UserError(f"reward.type={section.built_in} does not know the backbone's elements {', '.join(unknown)}")
    if not section.use_energy or (references := atom_references(reward.config)) is None:
        return
    energies = reference_energies(numbers[:, None], references).tolist()
    if missing := [symbol for symbol, energy in zip(network.elements, energies, strict=True) if isnan(energy)]:
        raise UserError(
            f"reward.energy_atom_refs lacks the backbone's elements {', '.join(missing)}, and their molecules would "
            "have no energy: add them, in eV, or give xtb or null"
        )
