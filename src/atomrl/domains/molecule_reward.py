"""The reward of molecules that a configuration describes: a built-in one, components of the user's, or both."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import isnan
from pathlib import Path

from atomrl.checkpoints.backbone import Backbone
from atomrl.chemistry.known_smiles import read_known
from atomrl.config.molecules import MoleculeConfig, MoleculeReward
from atomrl.core.conditioning import Conditioning
from atomrl.core.protocols import ForceField, Reward
from atomrl.core.stages import Stage, Total
from atomrl.force_fields.build import build_force_field
from atomrl.measures.forces import reference_energies
from atomrl.measures.molecule_names import MoleculeNamesProvider
from atomrl.policies.molecule import element_numbers
from atomrl.rewards.build import build_components
from atomrl.rewards.components import ASKED, PredictorReward
from atomrl.rewards.dummy import DummyReward
from atomrl.rewards.force_energy import ForceEnergyReward, atom_references, force_energy_stages
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.rewards.together import Together
from atomrl.structures.listing import MOLECULES
from atomrl.util.errors import UserError
from atomrl.workers.executor import Workers

log = logging.getLogger(__name__)


def molecule_reward(config: MoleculeConfig, model: Backbone, workers: Workers | None = None) -> Reward:
    """The reward; warns of stability terms that nothing learns from.

    Raises:
        UserError: a component or the force field cannot be built; the force field, or the atoms' reference energies, do
            not know one of the backbone's elements.
    """
    section = config.reward
    parts: list[Reward] = []
    own = own_components(section, workers, config.dataloader.known, model.conditioning)
    require_asked(own, model)
    if section.built_in == "dummy":
        parts.append(DummyReward())
    elif section.built_in is not None:
        parts.append(_physics(config, model, workers))
    if own is not None:
        parts.append(own)
    return parts[0] if len(parts) == 1 else Together(parts)


def own_components(
    section: MoleculeReward,
    workers: Workers | None = None,
    known: Path | None = None,
    conditioning: Conditioning | None = None,
) -> ReinforceReward | None:
    """The user's components as one reward, a channel each, which the objective weighs; None if there are none.

    A component that normalises over the batch needs all samples; the others score each sample as it comes.
    """
    if not section.own:
        return None
    reward = ReinforceReward(build_components(section.own), listing=MOLECULES, weighed=False, conditioning=conditioning)
    if set(reward.missing_metrics) & set(MoleculeNamesProvider.names):
        training = None if known is None else read_known(known, workers or section.workers)
        reward.provide(MoleculeNamesProvider(1 if workers is None else workers.limited(1), training))
    if all(component.normalize_fn is None and not component.compares for component in reward.components):
        reward.scope = "per_sample"
    return reward


def require_asked(own: ReinforceReward | None, model: Backbone) -> None:
    """Raise UserError for a reward toward what prompts ask for, of a model whose prompts do not.

    Raises:
        UserError: as said.
    """
    names = () if model.conditioning is None else model.conditioning.names
    for component in () if own is None else own.components:
        if not isinstance(component, PredictorReward) or component.target_value != ASKED:
            continue
        if component.target_name not in names:
            conditioned = f"conditioned on {', '.join(names)}" if names else "unconditional"
            raise UserError(
                f"reward.components: PredictorReward wants the {component.target_name} that is asked for, and "
                f"{model.origin} is {conditioned}: take a backbone that is conditioned on it, or give target_value a "
                "number"
            )


def own_weights(reward: Reward) -> Mapping[str, float]:
    """Weight of each of the user's components in a reward of `molecule_reward`, by the name of its channel."""
    if isinstance(reward, Together):
        return {name: weight for part in reward.rewards for name, weight in own_weights(part).items()}
    return reward.weights if isinstance(reward, ReinforceReward) else {}


def molecule_stages(config: MoleculeConfig, reward: Reward) -> tuple[Stage, ...]:
    """Gates, stability in the force channel, and the total, in which each component of the user's has its weight."""
    weights = own_weights(reward)
    if config.reward.built_in in (None, "dummy"):
        return (Total(weights),) if weights else ()
    return force_energy_stages(config.reward, weights)


def _physics(config: MoleculeConfig, model: Backbone, workers: Workers | None) -> ForceEnergyReward:
    """Forces and energies."""
    section = config.reward
    chosen = "xtb" if section.force_field is None else section.force_field
    force_field = build_force_field(chosen, {**section.model_dump(), "workers": workers or section.workers})
    _require_elements(section, force_field, model)
    if section.pays_stability and not config.channel_weights[section.stability_home]:
        log.warning(
            "stability and valence are scored, but not learned: they are in the channel %s, and train.%s_adv_weight=0",
            *(section.stability_home,) * 2,
        )
    if not section.by_gfn2 and section.energy_atom_refs == "xtb":
        section = section.changed(energy_atom_refs=None)  # nobody learns from energies here, and these are of GFN2
    return ForceEnergyReward(force_field, section)


def _require_elements(section: MoleculeReward, force_field: ForceField, model: Backbone) -> None:
    """Raise UserError for a force field or references that lack one of the backbone's elements."""
    network = model.network.config
    numbers = element_numbers(network)
    pairs = list(zip(network.elements, numbers.tolist(), strict=True))
    if unknown := [symbol for symbol, number in pairs if number not in force_field.elements]:
        raise UserError(f"reward.type={section.built_in} does not know the backbone's elements {', '.join(unknown)}")
    if not section.use_energy or (references := atom_references(section)) is None:
        return
    energies = reference_energies(numbers[:, None], references).tolist()
    if missing := [symbol for symbol, energy in zip(network.elements, energies, strict=True) if isnan(energy)]:
        raise UserError(
            f"reward.energy_atom_refs lacks the backbone's elements {', '.join(missing)}, and their molecules would "
            "have no energy: add them, in eV, or give xtb or null"
        )
