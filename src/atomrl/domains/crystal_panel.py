"""The judges of crystals: matcher, force field with its hull, features; relaxed samples; a second force field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from atomrl.core.prompts import ungrouped
from atomrl.core.protocols import Reward
from atomrl.core.records import Prompts, Structures
from atomrl.core.stages import total_reward
from atomrl.domains.crystal_judges import CrystalJudges
from atomrl.evaluation.best_of import best_of_n
from atomrl.evaluation.crystals import CrystalScorecard, evaluate_crystals
from atomrl.evaluation.kept_results import KeptForceField, KeptProvider, lot_size
from atomrl.evaluation.kept_samples import KeptSamples, Noted
from atomrl.evaluation.panel import Judged, Panel
from atomrl.evaluation.relaxation import chosen_rows, part_of_the_samples, relax_in_lots
from atomrl.evaluation.sample_columns import (
    crystal_columns,
    relaxed_crystal_columns,
    second_judge_crystal_columns,
)
from atomrl.evaluation.sample_table import SampleColumns, at_rows
from atomrl.evaluation.wanted import WantedJudge, draw_distributions
from atomrl.export.crystals import AnnotatedCrystals, write_cif, write_extxyz
from atomrl.measures.crystal_validity import composition_valid
from atomrl.measures.crystal_verdicts import MATCHING, CrystalVerdicts, judge_crystals
from atomrl.measures.measure import Metric, MetricProvider, SoundSamples
from atomrl.measures.physics import HullProvider
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.rewards.whole import WholeReward
from atomrl.structures.crystals import check_cells, from_crystals, to_crystals
from atomrl.structures.padding import replace_rows
from atomrl.util.errors import UserError

RELAX = "atomrl.force_fields.relax_task:relax_crystal"
FMAX, MAX_STEPS, MAX_SECONDS = 0.1, 300, 120.0
"""eV/Å; steps; seconds of processor time per crystal, so that a busy machine does not decide what converges."""
RELAX_TIMEOUT = 900.0
"""Seconds on the wall, after which a worker hangs."""
SALT = ((11, 1), (17, 1))
"""NaCl."""


@dataclass(frozen=True)
class KnownMatching:
    """Verdicts of the matcher that are known already, for a second judge of the same samples."""

    verdicts: CrystalVerdicts
    names = MATCHING

    def measure(self, batch: SoundSamples) -> Mapping[str, Metric]:
        """Of the samples whose geometry is sound, as `judge_crystals` asks."""
        rows = [row for row, reason in enumerate(self.verdicts.reasons["geometry"]) if reason is None]
        reasons = tuple(self.verdicts.reasons["matching"][row] for row in rows)
        flags = {"unique": self.verdicts.unique, "novel": self.verdicts.novel}
        return {name: Metric(torch.from_numpy(values[rows]).double(), reasons) for name, values in flags.items()}

    def close(self) -> None:
        """Nothing to give back."""


class CrystalPanel(Panel):
    """Profile `mp20-2025`.

    Args:
        judges: make the providers.
        relaxed: so many samples are judged once more after a relaxation by CHGNet.
        second_judge: of `CrystalJudges.second`, or None.
        reward: makes the training's reward, by which `judge_best` chooses.
        batch: samples that the training scores at once.
        own: the training's components that pay for no metric of the profile; each gets a row.
        mixed_valence: whether composition validity with mixed valence gets a row too.
        wanted: judges of properties, which get two rows each.

    Raises:
        UserError: an unknown second judge; no reference set or hull; a package is not installed.
    """

    def __init__(
        self,
        judges: CrystalJudges,
        relaxed: int = 0,
        second_judge: str | Mapping[str, Any] | None = None,
        reward: Callable[[], Reward] | None = None,
        batch: int = 320,
        own: ReinforceReward | WholeReward | None = None,
        mixed_valence: bool = False,
        wanted: Sequence[WantedJudge] = (),
    ) -> None:
        self.judges, self.relaxed, self._reward = judges, relaxed, reward
        self.batch, self.own, self.mixed_valence, self.wanted = batch, own, mixed_valence, wanted
        composition_valid(SALT)  # what SMACT lacks shows now, not after a training
        self.physics = judges.physics()
        self.second = None if second_judge is None else judges.second(second_judge)
        self.matching, self.features = judges.matching(), judges.features()
        settings = {"fmax": FMAX, "max_steps": MAX_STEPS, "max_seconds": MAX_SECONDS}
        self._relaxing = judges.workers.executor(RELAX, RELAX_TIMEOUT, settings)  # starts when it is asked

    def judge(self, structures: Structures, kept: KeptSamples | None = None, prompts: Prompts | None = None) -> Judged:
        """Judge crystals, as sampled, and as asked relaxed and by the second judge."""
        structures = structures.to(torch.device("cpu"))
        energies = self._kept_energies(self.physics, kept, "energies")
        providers: list[MetricProvider] = [self._kept_matching(kept), energies, self.features]
        verdicts = self._verdicts(structures, providers)
        verdicts = self._with_components(verdicts, structures, prompts)
        predicted = {judge.label: judge.predict(structures) for judge in self.wanted}
        verdicts = replace(verdicts, predicted=predicted)
        further = {}
        if self.second is not None:
            again = self._verdicts(
                structures, [KnownMatching(verdicts), self._kept_energies(self.second, kept, "second judge")]
            )
            further["second judge"] = self._metrics(again, self.second, "as sampled")
        if self.relaxed:
            further["relaxed"] = self._relaxed(structures, kept)
        ids = [f"{row:05d}" for row in range(len(structures))]
        # Said of every column alike, of one without a sound sample too: only like conditions stand in one table.
        features = f"the base model's VAE, against {self.judges.reference.name}"
        metrics = self._metrics(verdicts, self.physics, "as sampled", features)
        for judge in self.wanted:
            metrics = judge.add_to(metrics)
        return Judged(metrics, AnnotatedCrystals(structures, ids, verdicts.rows()), further)

    def judge_best(self, structures: Structures, prompts: Prompts, n: int, kept: KeptSamples | None = None) -> Judged:
        """Keep the best of each n by the total reward, and judge those.

        The reward sees about as many at once as in training: it compares samples with each other, and its memory grows
        with the square of their number.
        """
        if self._reward is None:
            raise UserError("best-of-N chooses by a training's reward: give the run with --trained")
        structures, at_once = structures.to(torch.device("cpu")), n * max(1, self.batch // n)
        lots = [slice(start, start + at_once) for start in range(0, len(structures), at_once)]
        with closing(self._reward()) as reward:
            rewards = [total_reward(reward, (), structures[lot], prompts[lot]) for lot in lots]
        rows = torch.from_numpy(best_of_n(torch.cat(rewards).numpy(), n))
        return self.judge(structures[rows], kept, prompts[rows])

    def known_samples(self, count: int, seed: int) -> Structures:
        """Training crystals of the reference set."""
        drawn = self.judges.reference.crystals.draw(count, seed)
        return from_crystals([drawn.crystal(row) for row in range(len(drawn))])

    def columns(self, judged: Judged) -> SampleColumns:
        """See `Panel`."""
        ids, further = judged.samples.ids, judged.further
        found = dict(crystal_columns(judged.metrics.samples, ids))
        if "second judge" in further:
            found |= second_judge_crystal_columns(further["second judge"].samples)
        if "relaxed" in further:
            rows = chosen_rows(len(ids), self.relaxed).numpy()
            found |= at_rows(relaxed_crystal_columns(further["relaxed"].samples), rows, len(ids))
        return found

    def write(self, folder: Path, name: str, judged: Judged) -> None:
        """CIF and extended XYZ."""
        write_extxyz(folder / f"{name}.extxyz", judged.samples)
        write_cif(folder / f"{name}.cif", judged.samples)

    def draw(self, folder: Path, judged: Mapping[str, Judged]) -> None:
        """How each wanted property is distributed, `evaluation_<property>.svg`."""
        for judge in self.wanted:
            columns = {label: verdict.metrics.samples.predicted[judge.label] for label, verdict in judged.items()}
            draw_distributions(judge, columns, folder / judge.figure)

    def close(self) -> None:
        """End the workers."""
        providers: list[MetricProvider] = [self.matching, self.physics, self.features]
        for provider in [*providers, *([self.second] if self.second else [])]:
            provider.close()
        if self.own is not None:
            self.own.close()
        self._relaxing.close()

    def _verdicts(self, structures: Structures, providers: Sequence[MetricProvider]) -> CrystalVerdicts:
        """Of these providers."""
        return judge_crystals(structures, providers, mixed_valence=self.mixed_valence)

    def _kept_matching(self, kept: KeptSamples | None) -> KeptProvider:
        """The matcher, whose verdicts are kept."""
        crystals, tolerances = self.judges.reference.crystals, self.matching.matcher.tolerances
        return KeptProvider(self.matching, kept, "" if kept is None else f"{crystals.fingerprint}, {tolerances}")

    def _kept_energies(self, physics: HullProvider, kept: KeptSamples | None, description: str) -> HullProvider:
        """Energies in lots, which are kept."""
        lot = lot_size(self.judges.workers.count, self.judges.section.batch_size)
        return HullProvider(KeptForceField(physics.force_field, kept, lot, description), physics.hull)

    def _with_components(
        self, verdicts: CrystalVerdicts, structures: Structures, prompts: Prompts | None
    ) -> CrystalVerdicts:
        """The verdicts with what each component of one's own computes."""
        if self.own is None:
            return verdicts
        table = self.own.score(structures, ungrouped(structures) if prompts is None else prompts)
        pairs = zip(table.reasons, verdicts.reasons["geometry"], strict=True)
        return replace(
            verdicts,
            components={name: table.diagnostics[f"raw_{name}"].numpy() for name in self.own.names},
            reasons={
                **verdicts.reasons,
                "reward_components": tuple(reason if unsound is None else None for reason, unsound in pairs),
            },
        )

    def _metrics(
        self, verdicts: CrystalVerdicts, physics: HullProvider, geometry: str, features: str = "none"
    ) -> CrystalScorecard:
        """The summary."""
        return evaluate_crystals(
            verdicts,
            evaluator=physics.description,
            novelty_set=self.judges.reference.name,
            features=features,
            geometry=geometry,
            tolerances=self.matching.matcher.tolerances,
        )

    def _relaxed(self, structures: Structures, kept: KeptSamples | None) -> CrystalScorecard:
        """Some samples, relaxed, judged."""
        rows = chosen_rows(len(structures), self.relaxed)
        limits = f"{FMAX} eV/Å in at most {MAX_STEPS} steps or {MAX_SECONDS:g} s"
        how = f"positions and cell relaxed by CHGNet, FIRE to {limits}"
        before = None if kept is None else kept.made_from(structures[rows], f"{how}; {self.physics.description}")
        after, notes = relax_in_lots(structures[rows], self._relax, before)
        energies = self._kept_energies(self.physics, kept, "relaxed")
        verdicts = self._verdicts(after, [self._kept_matching(kept), energies])
        pairs = zip(notes, verdicts.reasons["geometry"], strict=True)
        relaxation = tuple(note if unsound is None else None for note, unsound in pairs)
        verdicts = replace(verdicts, reasons={**verdicts.reasons, "relaxation": relaxation})
        return self._metrics(verdicts, self.physics, f"{how}; {part_of_the_samples(self.relaxed)}")

    def _relax(self, structures: Structures) -> Noted:
        """Each crystal where its relaxation ended, and why that is no minimum.

        As it was, if its cell is not sound (without a note: it is a matter of its geometry) or its worker was lost.
        """
        sound = [row for row, reason in enumerate(check_cells(structures)) if reason is None]
        started = to_crystals(structures[torch.tensor(sound, dtype=torch.int64)])
        outcomes = self._relaxing.map(started)
        notes: list[str | None] = [None] * len(structures)
        ended = list(started)
        for place, (row, outcome) in enumerate(zip(sound, outcomes, strict=True)):
            if outcome.reason is None:
                ended[place], notes[row] = outcome.value
            else:
                notes[row] = outcome.reason
        return replace_rows(structures, sound, from_crystals(ended)), tuple(notes)
