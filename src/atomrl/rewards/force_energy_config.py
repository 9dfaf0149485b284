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
        bad = [symbol for symbol, energy in value.items() if not _is_energy(energy)]
    if bad:
        raise contradiction(
            f"{{at}}energy_atom_refs: {bad[0]} is no energy of a symbol: give xtb, own, {{symbol: eV}} or null"
        )
    return value


def _is_energy(value: object) -> bool:
    """A finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


class ForceEnergyConfig(Options):
    """Options of the physical reward. Lengths Å, energies eV, forces eV/Å."""

    force_weight: Weight = 1.0
    """Of the force channel in the total."""
    energy_weight: Weight = 1.0
    """Of the energy channel in the total."""
    force_aggregation: Literal["rms", "max"] = "rms"
    """Over atoms."""
    force_clip_threshold: Annotated[PositiveFinite | None, Unit("eV/Å")] = None
    """eV/Å; longer force vectors are shortened to this first; null: they are not."""
    use_energy: bool = False
    """Whether there is an energy channel."""
    energy_atom_refs: Annotated[Literal["xtb", "own", "omol"] | dict[str, float] | None, BeforeValidator(_energies)] = (
        "xtb"
    )
    """Energies of isolated atoms that are subtracted, {symbol: eV}; `xtb`: those of GFN2-xTB, which suit no other force
    field; `own`: those that the force field says itself; `omol`: the same, of UMA (published name); null: none."""
    energy_normalize_by_atoms: bool = True
    """Divide by the number of atoms."""
    energy_transform_offset: Annotated[Finite, Unit("eV")] = 0.0
    """eV, added then."""
    energy_transform_scale: Annotated[PositiveFinite, Unit("eV")] = 1.0
    """eV, divides the sum."""
    energy_transform_clip: PositiveFinite | None = None
    """The result is clamped to plus and minus this; null: it is not."""
    stability_weight: Weight = 0.0
    """Reward of a stable molecule, cost of an unstable one."""
    atom_stability_weight: Weight = 0.0
    """Cost of the fraction of unstable atoms."""
    valence_underbond_weight: Weight = 0.0
    """Cost of a missing bond order."""
    valence_overbond_weight: Weight = 0.0
    """Cost of an excess bond order."""
    valence_underbond_soft_weight: Weight = 0.0
    """Cost of a missing smooth bond order."""
    valence_overbond_soft_weight: Weight = 0.0
    """Cost of an excess smooth bond order."""
    valence_soft_temperature: Annotated[PositiveFinite, Unit("Å")] = 0.02
    """Å, width of a smooth bond order."""
    stability_channel: Literal["force", "own"] = "force"
    """Where the stability and valence terms go: `force` (as published), or a channel of their `own`, named
    "stability"."""
    force_only_if_stable: bool = False
    """Gate the force term (before stability terms are added)."""
    energy_only_if_stable: bool = False
    """Gate the energy channel."""
    gate: Literal["floor", "mask", "published"] = "floor"
    """What a gate does to an unstable sample. `floor`: it gets its group's worst stable value; in a group without one
    the gate is off. `mask`: NaN with reason "gated". `published`: 0, which is better than any stable sample's force
    term."""

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
