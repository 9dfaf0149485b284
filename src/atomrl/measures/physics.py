"""Metrics that need physics or an encoder: energies above the hull, and features of a crystal VAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from atomrl.chemistry.hull import Hull
from atomrl.core.protocols import ForceField
from atomrl.core.records import Structures
from atomrl.measures.measure import FeatureProvider, Metric, SoundSamples
from atomrl.networks.crystal_vae import PAIRS_AT_ONCE, CrystalVAE, readable
from atomrl.structures.crystals import compositions
from atomrl.structures.padding import lots
from atomrl.util.errors import UserError
from atomrl.util.progress import bar

MANY = 20
"""Such lots that are worth a progress bar."""


class HullForceField(ForceField, Protocol):
    """A force field that says what its energies may be compared with.

    Attributes:
        model_id: name, version and hash of the model.
        correction: correction scheme of its energies.
    """

    model_id: str
    correction: str


class HullProvider:
    """Energies above the hull; implements `MetricProvider`.

    | name | values |
    |---|---|
    | `e_above_hull` | eV/atom; NaN with the reason of the force field, or else of the hull |
    | `energy_per_atom` | eV/atom; NaN with the reason of the force field |
    | `hull_holds_compound` | 1 if the hull of its elements holds a compound; where it is 0, "stable" says little |
    | `hull_entries` | different compounds of its elements that the reference knows, see `Hull.count_compounds` |

    Args:
        force_field: of the energies; `close` closes it too.
        hull: of the same model and correction.
        data_version: that the hull must have; any if None.

    Raises:
        UserError: the hull is of another model, correction or data version.
    """

    names = ("e_above_hull", "energy_per_atom", "hull_holds_compound", "hull_entries")

    def __init__(self, force_field: HullForceField, hull: Hull, data_version: str | None = None) -> None:
        hull.require(force_field.model_id, force_field.correction, data_version)
        self.force_field, self.hull = force_field, hull

    @property
    def description(self) -> str:
        """Model, correction and hull, for the record."""
        key, count = self.hull.key, len(self.hull.entries)
        phases = f"{count} phases{' that it relaxed' if key.relaxed else ''}"
        return f"{key.model_id} ({key.correction}), hull {key.data_version} of {phases}"

    def measure(self, batch: SoundSamples) -> Mapping[str, Metric]:
        """All four, (B,) each."""
        results = self.force_field.evaluate(batch.tensors)
        totals = [result.energy if result.reason is None else np.nan for result in results]
        energies = np.array(totals, dtype=np.float64) / batch.tensors.sizes.cpu().clamp(min=1).numpy()
        formulas = compositions(batch.tensors)
        above, hull_reasons = self.hull.energy_above_hull(formulas, energies)
        failed = tuple(result.reason for result in results)
        reasons = tuple(first or second for first, second in zip(failed, hull_reasons, strict=True))
        holds = torch.from_numpy(self.hull.hold_compounds(formulas)).double()
        known = torch.from_numpy(self.hull.count_compounds(formulas)).double()
        return {
            "hull_entries": Metric(known, (None,) * len(batch)),
            "e_above_hull": Metric(torch.from_numpy(above), reasons),
            "energy_per_atom": Metric(torch.from_numpy(energies), failed),
            "hull_holds_compound": Metric(holds, (None,) * len(batch)),
        }

    def close(self) -> None:
        """Close the force field."""
        self.force_field.close()


def vae_feature_provider(vae: CrystalVAE, reference: Structures | Mapping[str, Tensor]) -> FeatureProvider:
    """Provider of `structure_features` (B, D) and `composition_features` (B, d), see `vae_features`.

    Args:
        vae: frozen, in evaluation mode.
        reference: the set to compare with, encoded here, once; or its features, as `reference_features` gives them.

    Raises:
        UserError: as `reference_features`.
    """

    def encode(structures: Structures) -> Mapping[str, Tensor]:
        return vae_features(vae, structures)

    return FeatureProvider(
        encode, reference_features(vae, reference) if isinstance(reference, Structures) else reference
    )


def reference_features(vae: CrystalVAE, reference: Structures) -> dict[str, Tensor]:
    """Features of a set to compare with.

    Args:
        vae: frozen, in evaluation mode.
        reference: the set. Cells must be in the orientation that the VAE was trained on, since it reads raw lattice
            vectors.

    Raises:
        UserError: the reference is empty, has no cells, or features of it are not finite.
    """
    if not len(reference) or reference.cell is None:
        raise UserError(f"features are compared with a set of crystals, got {len(reference)} structures without cells")
    references = vae_features(vae, reference)
    for name, values in references.items():
        bad = (~values.isfinite().all(1)).nonzero().flatten().tolist()
        if bad:
            raise UserError(
                f"{name} of {len(bad)} reference crystals are not finite (the first is row {bad[0]}): leave out cells "
                "without volume and elements that the VAE does not know"
            )
    return references


@torch.no_grad()
def vae_features(vae: CrystalVAE, structures: Structures) -> dict[str, Tensor]:
    """Means over the atoms of the latent (B, D) and of the encoder's atom-type embedding (B, d), on the CPU.

    NaN for a crystal that has no fractional coordinates, or an element that the VAE does not know.
    """
    weight = vae.encoder.atom_type_embedder.weight
    widths = {"structure_features": vae.config.latent, "composition_features": vae.config.width}
    found = {name: torch.zeros(len(structures), width, dtype=weight.dtype) for name, width in widths.items()}
    parts = lots(structures, PAIRS_AT_ONCE)
    for places, part in bar(parts, "features") if len(parts) > MANY else parts:
        batch, known = readable(vae, part)
        rows = {
            "structure_features": vae.encode(batch).mean,
            "composition_features": vae.encoder.atom_type_embedder(batch.numbers),
        }
        for name, values in rows.items():
            means = torch.where(batch.mask[..., None], values, 0).sum(1) / batch.mask.sum(1, keepdim=True)
            found[name][places] = torch.where(known[:, None], means, torch.nan).cpu()
    return found
