"""Providers of a crystal's metrics, for the reward and for the evaluation: each made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property, partial
from typing import Any

from atomrl.chemistry.hull import Hull
from atomrl.config.crystals import CrystalReward
from atomrl.data.crystal_reference import CrystalReference
from atomrl.data.reference_file import FEATURES_FILE, load_features
from atomrl.force_fields.build import KEY, build_crystal_force_field, crystal_hull_file
from atomrl.matching.amd import AMDDistances
from atomrl.matching.matcher import CrystalMatcher
from atomrl.measures.crystal_verdicts import FEATURES
from atomrl.measures.drawn_before import DrawnBefore
from atomrl.measures.matching import AMDProvider, MatchingProvider
from atomrl.measures.measure import RELAXED, FeatureProvider, MetricProvider
from atomrl.measures.physics import HullForceField, HullProvider, vae_feature_provider
from atomrl.measures.relaxed import RelaxedHullProvider
from atomrl.networks.crystal_vae import CrystalVAE
from atomrl.structures.cells import Crystal
from atomrl.util.errors import UserError
from atomrl.workers.executor import Workers
from atomrl.workers.local import as_workers

DEFAULT = "chgnet"
"""The force field of every evaluation, and of a reward that names none."""


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
        self.section, self.vae, self.device = section, vae, device
        self.workers = as_workers(workers or section.workers)

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
        own = self.section.force_field is not None  # then the section's hull is of that force field
        return self._above_hull(DEFAULT, None if own else self.section.hull)

    def rewarded_physics(self) -> HullProvider:
        """Energies by the reward's force field above its hull.

        Raises:
            UserError: the force field cannot be made, or the hull is of another one.
        """
        return self._above_hull(self.section.force_field or DEFAULT, self.section.hull)

    def relaxed_physics(self, steps: int) -> RelaxedHullProvider:
        """Energies by the reward's force field above its hull, after so many steps of relaxation.

        Raises:
            UserError: as `rewarded_physics`.
        """
        chosen = self.section.force_field or DEFAULT
        hull, force_field = self._hull(chosen, self.section.hull), self._force_field(chosen, gradients=True)
        return RelaxedHullProvider(force_field, hull, steps, self.section.relax_seconds)

    def second(self, chosen: str | Mapping[str, Any]) -> HullProvider:
        """Energies by a force field that no training saw, above its own hull of the same reference phases.

        Args:
            chosen: as `build_crystal_force_field` takes it.

        Raises:
            UserError: the force field cannot be made, or the reference set has no hull of it.
        """
        return self._above_hull(chosen, None, "evaluation.second_judge")

    def features(self) -> FeatureProvider:
        """`structure_features` and `composition_features`, of the reference's too.

        The latter are read where `atomrl data reference` left those of this VAE, else they are computed now.
        """
        crystals = self.reference.crystals
        known = load_features(self.reference.folder / FEATURES_FILE, self.vae, crystals)
        return vae_feature_provider(self.vae, crystals.structures() if known is None else known)

    def providers(self, names: Collection[str]) -> list[MetricProvider]:
        """Those that these metrics of a reward need.

        Raises:
            UserError: no provider measures one of them.
        """
        makers: dict[tuple[str, ...], Callable[[], MetricProvider]] = {
            **{
                (name,): partial(self.relaxed_physics, int(name[len(RELAXED) :])) for name in names if _is_relaxed(name)
            },
            MatchingProvider.names: self.matching,
            AMDProvider.names: self.distances,
            HullProvider.names: self.rewarded_physics,
            DrawnBefore.names: DrawnBefore,
            FEATURES: self.features,
        }
        known = {name for group in makers for name in group}
        if unknown := sorted(set(names) - known):
            raise UserError(f"nothing measures the metric {', '.join(unknown)}: choose from {', '.join(sorted(known))}")
        return [make() for group, make in makers.items() if set(group) & set(names)]

    def _above_hull(self, chosen: str | Mapping[str, Any], hull: str | None, key: str = KEY) -> HullProvider:
        """Energies by a force field above a hull: a file, or the reference set's own of its energies."""
        known = self._hull(chosen, hull, key)  # first: what is missing shows before models load
        return HullProvider(self._force_field(chosen, key), known)

    def _hull(self, chosen: str | Mapping[str, Any], hull: str | None, key: str = KEY) -> Hull:
        """A file, or the reference set's hull of a force field's energies."""
        return self.reference.hull(hull, crystal_hull_file(chosen, key))

    def _force_field(self, chosen: str | Mapping[str, Any], key: str = KEY, gradients: bool = False) -> HullForceField:
        """A force field, and whether it must give forces and stress."""
        size = self.section.batch_size
        found: HullForceField = build_crystal_force_field(chosen, self.workers, self.device, size, gradients, key)
        return found

    def _known(self) -> Iterator[Crystal]:
        """The reference's crystals, one by one."""
        return map(self.reference.crystals.crystal, range(len(self.reference.crystals)))


def asks_force_field(metric: str) -> bool:
    """Whether a metric is measured by the reward's force field and hull."""
    return metric in HullProvider.names or _is_relaxed(metric)


def _is_relaxed(name: str) -> bool:
    """Whether a metric is an energy after some steps of relaxation."""
    return name.startswith(RELAXED) and name[len(RELAXED) :].isdigit()
