"""Providers of a crystal's metrics, for the reward and for the evaluation: each made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from typing import TypedDict

import torch

from atomrl.config.crystals import CrystalReward
from atomrl.core.records import Structures
from atomrl.data.crystal_reference import CrystalReference
from atomrl.data.prototype_set import hull_file
from atomrl.force_fields.build import build_crystal_force_field
from atomrl.force_fields.chgnet import CHGNetForceField
from atomrl.matching.amd import AMDDistances
from atomrl.matching.matcher import CrystalMatcher
from atomrl.measures.crystal_verdicts import FEATURES
from atomrl.measures.drawn_before import DrawnBefore
from atomrl.measures.matching import AMDProvider, MatchingProvider
from atomrl.measures.measure import FeatureProvider, MetricProvider
from atomrl.measures.physics import HullProvider, vae_feature_provider
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.structures.cells import Crystal
from atomrl.util.errors import UserError
from atomrl.workers.executor import Workers
from atomrl.workers.local import as_workers


class Place(TypedDict):
    """Where a force field computes, as it takes it."""

    device: str
    workers: Workers | int


class CrystalJudges:
    """Who measures crystals, as a configuration's reward section says.

    Args:
        section: reference set, hull, workers.
        vae: whose features diversity is measured in.
        device: of the force fields, `auto`, `cpu` or `cuda`; on the CPU they run in the workers.
        workers: of the run; if None local ones of its own, as many as the section says.
    """

    def __init__(
        self, section: CrystalReward, vae: CrystalVAE, device: str = "auto", workers: Workers | None = None
    ) -> None:
        self.section, self.vae = section, vae
        self.workers = as_workers(workers or section.workers)
        self._on_gpu = device != "cpu" and torch.cuda.is_available()

    @cached_property
    def reference(self) -> CrystalReference:
        """The set that is known."""
        return CrystalReference.load(self.section.reference_dataset)

    def matching(self) -> MatchingProvider:
        """`unique` and `novel`."""
        return MatchingProvider(CrystalMatcher(self._known(), self.workers, self.section.timeout))

    def distances(self) -> AMDProvider:
        """`amd_distance`."""
        return AMDProvider(AMDDistances(self._known()))

    def physics(self) -> HullProvider:
        """Energies by CHGNet above its hull: those of an evaluation, and of a reward that names no force field."""
        force_field = CHGNetForceField(batch_size=self.section.batch_size, **self._place())
        own = self.section.force_field is not None  # then the section's hull is of that force field
        return HullProvider(force_field, self.reference.hull(None if own else self.section.hull))

    def rewarded_physics(self) -> HullProvider:
        """Energies by the reward's force field above its hull.

        Raises:
            UserError: the force field cannot be made, or the hull is of another one.
        """
        if self.section.force_field is None:
            return self.physics()
        force_field = build_crystal_force_field(self.section.force_field, self.workers)
        return HullProvider(force_field, self.reference.hull(self.section.hull))

    def second(self, name: str) -> HullProvider:
        """Energies by a force field that no training saw, above its own hull of the same reference phases.

        Args:
            name: `sevennet`.

        Raises:
            UserError: an unknown name, no hull of it, or an extra that is not installed.
        """
        if name != "sevennet":
            raise UserError(f"evaluation.second_judge={name}: must be sevennet")
        from atomrl.force_fields import sevennet  # noqa: PLC0415 - an extra

        hull = self.reference.hull(name=hull_file(sevennet.NAME))
        return HullProvider(sevennet.SevenNetForceField(**self._place()), hull)

    def features(self) -> FeatureProvider:
        """`structure_features` and `composition_features`, of the reference's too."""
        return vae_feature_provider(self.vae, _structures(self.reference))

    def providers(self, names: Collection[str]) -> list[MetricProvider]:
        """Those that these metrics of a reward need.

        Raises:
            UserError: no provider measures one of them.
        """
        makers: dict[tuple[str, ...], Callable[[], MetricProvider]] = {
            MatchingProvider.names: self.matching,
            AMDProvider.names: self.distances,
            HullProvider.names: self.rewarded_physics,
            DrawnBefore.names: DrawnBefore,
            FEATURES: self.features,
        }
        known = {name for group in makers for name in group}
        if unknown := sorted(set(names) - known):
            raise UserError(f"nobody measures the metric {', '.join(unknown)}: choose from {', '.join(sorted(known))}")
        return [make() for group, make in makers.items() if set(group) & set(names)]

    def _place(self) -> Place:
        """Of a force field that is a network: a GPU, which this process feeds, or workers."""
        return {"device": "cuda", "workers": 0} if self._on_gpu else {"device": "cpu", "workers": self.workers}

    def _known(self) -> Iterator[Crystal]:
        """The reference's crystals, one by one."""
        return map(self.reference.crystals.crystal, range(len(self.reference.crystals)))


def _structures(reference: CrystalReference) -> Structures:
    """The reference's crystals as one padded batch."""
    batch = reference.crystals.padded()
    mask = batch.mask > 0
    return Structures(batch.numbers, (batch.frac_coords @ batch.cell) * mask[..., None], mask, batch.cell)
