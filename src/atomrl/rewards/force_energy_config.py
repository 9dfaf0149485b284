"""Options of the physical reward, apart from the code that needs torch: a configuration is read without it."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, model_validator

from atomrl.util.option_words import Unit
from atomrl.util.options import Finite, Options, PositiveFinite, Weight, contradiction

STABILITY_WEIGHTS = (
    "stability_weight",
    "atom_stability_weight",
    "valence_underbond_weight",
    "valence_overbond_weight",
    "valence_underbond_soft_weight",
    "valence_overbond_soft_weight",
)
"""Options of the stability and valence terms."""


FORCE_FIELD = "force_field"
"""Part of the scoring's time that it takes."""

OMOL = "omol"
"""Published name of UMA's energies of atoms, for its task OMol25."""

NAMED = ("xtb", "own", OMOL)


def _energies(value: object) -> object:
    """Raise UserError for a value that is not an energy, or not a mapping of symbols to energies."""
    if value is None or value in NAMED:
        return value
    bad: list[object] = [value]
    if isinstance(value, dict):
        bad = [f"{symbol}={energy}" for symbol, energy in value.items() if not _is_energy(energy)]
    if bad:
        raise contradiction(f"{{at}}energy_atom_refs: must be xtb, own, {{symbol: eV}} or null, got {bad[0]}")
    return value


def _is_energy(value: object) -> bool:
    """A finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


class ForceEnergyConfig(Options):
    """Options of the physical reward. Lengths Å, energies eV, forces eV/Å."""

    force_weight: Weight = 1.0
    """Weight of the force in the number `reward`, by which best-of-N and best_checkpoint_metric=reward choose; the
    objective has train.force_adv_weight."""
    energy_weight: Weight = 1.0
    """Weight of the energy in the number `reward`, by which best-of-N and best_checkpoint_metric=reward choose; the
    objective has train.energy_adv_weight."""
    force_aggregation: Literal["rms", "max"] = "rms"
    """How the forces on the atoms become one number: `rms`, the root mean square, or `max`, the largest."""
    force_clip_threshold: Annotated[PositiveFinite | None, Unit("eV/Å")] = None
    """A longer force on an atom counts as this long, in eV/Å; null: no clip."""
    use_energy: bool = False
    """Whether there is an energy channel."""
    energy_atom_refs: Annotated[Literal["xtb", "own", "omol"] | dict[str, float] | None, BeforeValidator(_energies)] = (
        "xtb"
    )
    """Energies of isolated atoms that are subtracted: `{symbol: eV}`; `xtb`: those of GFN2-xTB, which suit no other
    force field; `own`: those of the force field itself; `omol`: the same, of UMA (published name); null: none."""
    energy_normalize_by_atoms: bool = True
    """Whether to divide the energy by the number of atoms."""
    energy_transform_offset: Annotated[Finite, Unit("eV")] = 0.0
    """Added to the energy, in eV, after the division by the number of atoms if `energy_normalize_by_atoms` asks for
    it."""
    energy_transform_scale: Annotated[PositiveFinite, Unit("eV")] = 1.0
    """Divisor of the energy after the offset is added, in eV."""
    energy_transform_clip: PositiveFinite | None = None
    """The energy, after offset and scale, is clamped to plus and minus this; null: no clamp."""
    stability_weight: Weight = 0.0
    """Reward of a stable molecule: added for it, subtracted for an unstable one."""
    atom_stability_weight: Weight = 0.0
    """Cost of unstable atoms: subtracted in proportion to their share of the atoms."""
    valence_underbond_weight: Weight = 0.0
    """Cost of missing bond order, per bond order."""
    valence_overbond_weight: Weight = 0.0
    """Cost of excess bond order, per bond order."""
    valence_underbond_soft_weight: Weight = 0.0
    """Cost of missing bond order by smooth bond orders, per bond order."""
    valence_overbond_soft_weight: Weight = 0.0
    """Cost of excess bond order by smooth bond orders, per bond order."""
    valence_soft_temperature: Annotated[PositiveFinite, Unit("Å")] = 0.02
    """Width of a smooth bond order, in Å."""
    stability_channel: Literal["force", "own"] = "force"
    """Where the stability and valence terms go: `force`, added to the force channel, as published; `own`, a channel
    `stability` with a weight of its own."""
    force_only_if_stable: bool = False
    """Whether to gate the force of unstable molecules, as `gate` says (before stability terms are added)."""
    energy_only_if_stable: bool = False
    """Whether to gate the energy of unstable molecules, as `gate` says; needs `use_energy`."""
    gate: Literal["floor", "mask", "published"] = "floor"
    """What a gate does to an unstable molecule. `floor`: it gets the worst value of the stable molecules of its group;
    in a group without any, the gate is off. `mask`: it is left out of the channel (with `grpo`: altogether), with the
    reason "gated". `published`: it gets 0, which is a better force than any stable molecule has."""

    @model_validator(mode="after")
    def _check_gate(self) -> Self:
        """Raise UserError for a gate of a channel that there is not."""
        if self.energy_only_if_stable and not self.use_energy:
            raise contradiction(
                "{at}energy_only_if_stable=true needs {at}use_energy=true: there is no energy channel to gate"
            )
        return self

    @property
    def pays_stability(self) -> bool:
        """Whether any stability or valence term has a weight."""
        return any(getattr(self, name) for name in STABILITY_WEIGHTS)
