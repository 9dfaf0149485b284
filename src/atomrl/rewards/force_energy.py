"""The physical reward: small forces and low energies, with terms for stability and valence.

Source: the force and energy rewards of FED-GRPO. Larger is better in every channel.

    force      -sqrt(mean over atoms of |F|^2)     or  -max |F|
    energy     -clamp(((E - references) / atoms + offset) / scale)
    stability  w_s (+1 stable, -1 not) - w_a (1 - stable atoms / atoms) - valence errors, each with its weight
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from atomrl.chemistry.bonds import Valence, soft_valence, valence
from atomrl.core.protocols import ForceField
from atomrl.core.records import Prompts, RewardTable, Structures
from atomrl.core.stages import Gate, Penalties, SampleContext, Stage, Total, apply_stages, mark
from atomrl.force_fields.xtb import atom_energies
from atomrl.measures.forces import Physics, reference_energies, stack_results
from atomrl.rewards.force_energy_config import FORCE_FIELD, OMOL, ForceEnergyConfig
from atomrl.util.errors import UserError

NO_REFERENCE = "no_reference"


def atom_references(config: ForceEnergyConfig) -> Mapping[str, float] | None:
    """Energies of isolated atoms that are subtracted, {symbol: eV}, or None.

    Raises:
        UserError: they are the force field's own, and `with_own_references` has not asked it.
    """
    references = config.energy_atom_refs
    if isinstance(references, str) and references != "xtb":
        raise UserError(f"energy_atom_refs={references} needs a force field that has them: give xtb or {{symbol: eV}}")
    return atom_energies() if references == "xtb" else references


Options = TypeVar("Options", bound=ForceEnergyConfig)


def with_own_references(config: Options, force_field: ForceField) -> Options:
    """The options with the energies that the force field says itself, if they ask for these.

    Raises:
        UserError: it says none.
    """
    if config.energy_atom_refs not in ("own", OMOL):
        return config
    if not hasattr(force_field, "atom_energies"):  # of the user's
        raise UserError(
            f"energy_atom_refs={config.energy_atom_refs}: the force field has no method atom_energies; give "
            "{symbol: eV} or null"
        )
    return config.changed(energy_atom_refs=dict(force_field.atom_energies()))


class ForceEnergyReward:
    """Scores samples by a force field and by their stability; implements `protocols.Reward`.

    Its channels are those of `raw_scores`; what the options compare between samples is in `force_energy_stages`.

    Args:
        force_field: gives energies and forces; `close` closes it too.
        config: options.

    Raises:
        UserError: the options ask for the force field's own energies of atoms, and it says none.
    """

    scope: str = "per_sample"

    def __init__(self, force_field: ForceField, config: ForceEnergyConfig | None = None) -> None:
        self.force_field = force_field
        self.config = with_own_references(config or ForceEnergyConfig(), force_field)

    def score(self, structures: Structures, prompts: Prompts) -> RewardTable:
        """See `raw_scores`; the table is on the CPU, and says how long the force field took."""
        structures = structures.to(torch.device("cpu"))
        started = time.perf_counter()
        results = self.force_field.evaluate(structures)
        seconds = {FORCE_FIELD: time.perf_counter() - started}
        return replace(raw_scores(stack_results(results, structures), structures, self.config), seconds=seconds)

    def close(self) -> None:
        """Close the force field."""
        self.force_field.close()


@dataclass(frozen=True)
class Stability:
    """The stability and valence terms of B molecules.

    Attributes:
        hard: stability and valence errors by the table's bond orders.
        soft_underbond: missing smooth bond order, (B,).
        soft_overbond: excess smooth bond order, (B,).
        reward: weighted sum, larger is better, (B,) float64.
    """

    hard: Valence
    soft_underbond: Tensor
    soft_overbond: Tensor
    reward: Tensor


def raw_scores(physics: Physics, structures: Structures, config: ForceEnergyConfig) -> RewardTable:
    """Scores of B samples whose energies and forces are known, each by itself.

    Channels, (B,) float64: `force`; `energy` if `use_energy`; `stability`, the stability and valence terms. A failed
    evaluation is NaN in `force` and `energy`; `stability` needs finite positions only.

    Diagnostics: `stability`, 1 for a stable molecule; `atom_stability`; `valence_underbond`, `valence_overbond` and
    both with `_soft`, in bond orders; `rms_force`, before any clip, eV/Å; `energy_per_atom`, eV relative to the
    references; `odd_electrons`, 1 where one electron is unpaired.

    Args:
        physics: energies and forces.
        structures: the samples.
        config: options.

    Raises:
        UserError: an element without an allowed valence, or a reference for an unknown symbol.
    """
    stability = score_stability(structures, config)
    relative, references = physics.energies, atom_references(config)
    if references is not None:
        relative = relative - reference_energies(structures.numbers, references)
    reasons = physics.reasons
    channels = {"force": -aggregate_forces(physics.forces, structures.mask, config)}
    if config.use_energy:
        channels["energy"] = -transform_energies(relative, structures.sizes, config)
        reasons = mark(reasons, relative.isnan(), NO_REFERENCE)
    channels["stability"] = stability.reward
    diagnostics = {
        "stability": stability.hard.molecule_stable.double(),
        "atom_stability": stability.hard.atom_stability,
        "valence_underbond": stability.hard.underbond,
        "valence_overbond": stability.hard.overbond,
        "valence_underbond_soft": stability.soft_underbond,
        "valence_overbond_soft": stability.soft_overbond,
        "rms_force": aggregate_forces(physics.forces, structures.mask, ForceEnergyConfig()),
        "energy_per_atom": relative / structures.sizes,
        "odd_electrons": (structures.numbers.sum(1) % 2).double(),
    }
    return RewardTable(channels, reasons, fields={"forces": physics.forces}, diagnostics=diagnostics)


def force_energy_stages(config: ForceEnergyConfig, others: Mapping[str, float] | None = None) -> tuple[Stage, ...]:
    """The stages after `raw_scores`: gates, stability in the force channel if it has none of its own, and the total.

    The total, diagnostic `reward`, is force_weight * force + energy_weight * energy, plus the stability channel, whose
    terms have their own weights, plus `others`: weights of further channels.
    """
    gated = [("force", config.force_only_if_stable), ("energy", config.energy_only_if_stable)]
    gates = [Gate(channel, config.gate) for channel, on in gated if on]
    penalties = [] if config.stability_channel == "own" else [Penalties("stability", "force")]
    return (*gates, *penalties, Total({"force": config.force_weight, "energy": config.energy_weight, **(others or {})}))


def score_physics(
    physics: Physics, structures: Structures, group_ids: Tensor, config: ForceEnergyConfig
) -> RewardTable:
    """`raw_scores` after `force_energy_stages`: what an objective gets, but for failed scores, which stay NaN.

    Args:
        physics: energies and forces.
        structures: the samples.
        group_ids: (B,) int64; the gate `floor` compares inside them.
        config: options.
    """
    ids = torch.arange(len(structures), device=group_ids.device)
    prompts = Prompts(0, 0, structures.sizes, group_ids, ids)
    table = raw_scores(physics, structures, config)
    return apply_stages(force_energy_stages(config), table, SampleContext.of(structures, prompts))


def score_stability(structures: Structures, config: ForceEnergyConfig) -> Stability:
    """Stability and valence of B molecules, and the reward that the weights make of them."""
    molecules = (structures.numbers, structures.positions, structures.mask)
    hard = valence(*molecules)
    soft_under, soft_over = soft_valence(*molecules, config.valence_soft_temperature)
    # Of several allowed valences the weights pick the cheapest, so the reward's errors may differ from the log's.
    weights = (config.valence_underbond_weight, config.valence_overbond_weight)
    soft_weights = (config.valence_underbond_soft_weight, config.valence_overbond_soft_weight)
    weighted = valence(*molecules, *weights)
    temperature = config.valence_soft_temperature
    soft = soft_valence(*molecules, temperature, under_weight=soft_weights[0], over_weight=soft_weights[1])
    reward = (
        config.stability_weight * torch.where(hard.molecule_stable, 1.0, -1.0).double()
        - config.atom_stability_weight * (1 - hard.atom_stability)
        - _weighted_errors((weighted.underbond, weighted.overbond), weights)
        - _weighted_errors(soft, soft_weights)
    )
    return Stability(hard, soft_under, soft_over, reward)


def aggregate_forces(forces: Tensor, mask: Tensor, config: ForceEnergyConfig) -> Tensor:
    """Size of the forces on each structure, eV/Å, (B,): root mean square or maximum over atoms, clipped as asked.

    Args:
        forces: eV/Å, (B, N, 3).
        mask: real atoms, (B, N) bool.
        config: `force_aggregation` and `force_clip_threshold`.
    """
    lengths = torch.linalg.vector_norm(torch.where(mask[..., None], forces, 0.0), dim=2)
    if config.force_clip_threshold is not None:
        lengths = lengths.clamp(max=config.force_clip_threshold)  # NaN stays NaN
    root_mean_square = (lengths.square().sum(1) / mask.sum(1)).sqrt()
    size = lengths.amax(1) if config.force_aggregation == "max" else root_mean_square
    return torch.where(mask.any(1), size, torch.nan)


def transform_energies(energies: Tensor, atoms: Tensor, config: ForceEnergyConfig) -> Tensor:
    """What the config makes of energies (B,), eV, relative to the references; smaller is better, as for energies."""
    if config.energy_normalize_by_atoms:
        energies = energies / atoms
    transformed = (energies + config.energy_transform_offset) / config.energy_transform_scale
    if config.energy_transform_clip is None:
        return transformed
    return transformed.clamp(-config.energy_transform_clip, config.energy_transform_clip)


def _weighted_errors(errors: tuple[Tensor, Tensor], weights: tuple[float, float]) -> Tensor:
    """Weighted sum of missing and excess bond orders, (B,). Weight 0 switches a term off, NaN included."""
    total = torch.zeros_like(errors[0])
    for error, weight in zip(errors, weights, strict=True):
        if weight:
            total = total + weight * error
    return total
