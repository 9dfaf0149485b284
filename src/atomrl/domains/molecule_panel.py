"""The judges of molecules: GFN2-xTB and RDKit in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atomrl.chemistry.bond_entries import require_valences
from atomrl.chemistry.known_smiles import known_under
from atomrl.chemistry.rdkit import PERCEIVED, PROTOCOL, MoleculeChecker, RdkitRecord
from atomrl.config.molecules import MoleculeReward
from atomrl.core.prompts import ungrouped
from atomrl.core.protocols import ForceField, Reward
from atomrl.core.records import Prompts, Structures
from atomrl.core.stages import Stage, total_reward
from atomrl.data.batches import training_molecules
from atomrl.evaluation.asked_values import AskedJudge
from atomrl.evaluation.best_of import best_of_n
from atomrl.evaluation.definition import Scorecard
from atomrl.evaluation.kept_results import evaluate_in_lots, lot_size
from atomrl.evaluation.kept_samples import KeptSamples, Noted
from atomrl.evaluation.molecules import (
    MoleculeScorecard,
    SecondJudged,
    by_second_judge,
    evaluate_molecules,
    with_components,
)
from atomrl.evaluation.panel import Judged, Panel
from atomrl.evaluation.pose_checks import CheckedPoses, by_pose_checks, check_poses, pose_checker
from atomrl.evaluation.relaxation import chosen_rows, part_of_the_samples, relax_in_lots
from atomrl.evaluation.relaxed_molecules import RelaxedMolecules, evaluate_relaxed
from atomrl.evaluation.sample_columns import (
    molecule_columns,
    pose_columns,
    relaxed_molecule_columns,
    second_judge_molecule_columns,
)
from atomrl.evaluation.sample_table import SampleColumns, at_rows
from atomrl.export.molecules import Annotated, write_extxyz, write_sdf
from atomrl.force_fields.base import Evaluation
from atomrl.force_fields.computed_once import ComputedOnce
from atomrl.force_fields.xtb import XTBForceField, atom_energies
from atomrl.measures.forces import stack_results
from atomrl.rewards.force_energy import score_physics, with_own_references
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.rewards.whole import WholeReward
from atomrl.structures.molecules import check_geometries, split
from atomrl.workers.executor import Executor, Workers
from atomrl.workers.local import as_workers
from atomrl.workers.lots import LOT_ITEMS

EVALUATOR = "GFN2-xTB"
RELAX = "atomrl.force_fields.gfn2_relax:relax_molecule"
LIMITS = {"fmax": 0.05, "max_steps": 500, "max_seconds": 60.0}
"""Of a relaxation: eV/Å; steps; seconds of processor time per molecule, so that a busy machine does not decide."""
RELAX_TIMEOUT = 600.0
"""Seconds on the wall, after which a worker hangs."""


class MoleculePanel(Panel):
    """Profile `edm-2022`, or another one.

    Args:
        reward: by which `judge_best` chooses; the documented defaults if None.
        workers: of the run, or a number of processes; one per core that this process may use if None.
        own: the user's components; each gets a row of the table.
        relaxed: so many samples are judged once more after a relaxation by GFN2-xTB.
        poses: so many samples are checked by PoseBusters.
        second: another force field, whose forces stand in a table of their own, and its name.
        training: makes the training's reward and its stages, by which `judge_best` chooses where they are not what this
            panel computes anyway.
        asked: predicts what prompts of a conditional model asked for, for two more rows.
        known: file of SMILES that novel molecules are not in; None: QM9's, or none under another profile than
            `edm-2022`, by which QM9's are named.
        profile: of `chemistry.rdkit`.
        force_field: GFN2-xTB, where components ask it too; one of its own if None.

    Raises:
        UserError: that file cannot be read.
    """

    def __init__(
        self,
        reward: MoleculeReward | None = None,
        workers: Workers | int | None = None,
        own: ReinforceReward | WholeReward | None = None,
        relaxed: int = 0,
        poses: int = 0,
        second: tuple[str, ForceField] | None = None,
        training: Callable[[], tuple[Reward, Sequence[Stage]]] | None = None,
        asked: AskedJudge | None = None,
        known: Path | None = None,
        profile: str = PROTOCOL,
        force_field: ComputedOnce | None = None,
    ) -> None:
        workers = as_workers(workers)
        options = reward or MoleculeReward()
        self.force_field = force_field or XTBForceField(workers, options.timeout, options.max_iterations)
        self.reward = with_own_references(options, self.force_field)
        self.checker, self.profile = MoleculeChecker(workers, options.timeout, profile), profile
        self.known = known_under(profile, known, workers)
        self.own, self.relaxed, self.second, self._training = own, relaxed, second, training
        self.asked, self._lot = asked, lot_size(workers.count, LOT_ITEMS)
        settings = {"max_iterations": self.reward.max_iterations, **LIMITS}
        self.poses, self._poses = poses, pose_checker(workers, profile) if poses else None
        self._relaxing = workers.executor(RELAX, RELAX_TIMEOUT, settings) if relaxed else None

    def require_judgeable(self, structures: Structures) -> None:
        """See `require_valences`."""
        if self.profile != PERCEIVED:
            require_valences(structures.numbers, structures.mask)

    def judge(
        self,
        structures: Structures,
        kept: KeptSamples | None = None,
        prompts: Prompts | None = None,
        results: Sequence[Evaluation] | None = None,
    ) -> Judged:
        """Judge molecules; results of the force field that are known already are not computed again."""
        structures = structures.to(torch.device("cpu"))
        self.require_judgeable(structures)
        records = self.checker.check(structures)
        results = self._evaluated(structures, kept) if results is None else results
        metrics = self._metrics(structures, records, results)
        if self.own is not None:
            table = self.own.score(structures, ungrouped(structures) if prompts is None else prompts)
            metrics = with_components(metrics, {name: table.diagnostics[f"raw_{name}"] for name in self.own.names})
        if self.asked is not None:
            metrics = self.asked.add_to(metrics, structures, prompts)
        ids = [f"{row:05d}" for row in range(len(structures))]
        further: dict[str, Scorecard[Any]] = {}
        if self.second is not None:
            further["second judge"] = self._again(metrics, structures, self.second, kept)
        if self._relaxing is not None:
            further["relaxed"] = self._relaxed(structures, records, results, self._relaxing, kept)
        if self._poses is not None:
            further["PoseBusters"] = self._checked(structures, records, results, self._poses, kept)
        return Judged(metrics, Annotated(structures, ids, records, results), further)

    def judge_best(self, structures: Structures, prompts: Prompts, n: int, kept: KeptSamples | None = None) -> Judged:
        """Keep the best of each n by the total reward, and judge those."""
        structures = structures.to(torch.device("cpu"))
        results = None if self._training is not None else self._evaluated(structures, kept)
        totals = (
            self._totals(structures, prompts) if results is None else self._by_physics(results, structures, prompts)
        )
        rows = best_of_n(totals.numpy(), n)
        chosen = None if results is None else [results[row] for row in rows]
        return self.judge(structures[torch.from_numpy(rows)], kept, prompts[torch.from_numpy(rows)], chosen)

    def known_samples(self, count: int, seed: int) -> Structures:
        """Training molecules of QM9."""
        return training_molecules(count, seed)

    def _evaluated(self, structures: Structures, kept: KeptSamples | None) -> list[Evaluation]:
        """What the force field says, in lots, which are kept."""
        said = f"{EVALUATOR}, {self.reward.max_iterations} iterations"
        results = evaluate_in_lots(self.force_field, structures, kept, said, self._lot, "energies")
        if isinstance(self.force_field, ComputedOnce):  # components ask it for all samples at once
            self.force_field.remember(structures, results)
        return results

    def _metrics(
        self, structures: Structures, records: Sequence[RdkitRecord], results: Sequence[Evaluation]
    ) -> MoleculeScorecard:
        """The summary."""
        known, references = self.known, atom_energies()
        return evaluate_molecules(
            structures,
            records,
            results,
            references=references,
            training=known,
            evaluator=EVALUATOR,
            profile=self.profile,
        )

    def _relaxed(
        self,
        structures: Structures,
        records: Sequence[RdkitRecord],
        results: Sequence[Evaluation],
        relaxing: Executor,
        kept: KeptSamples | None,
    ) -> Scorecard[RelaxedMolecules]:
        """Some samples, relaxed, judged."""
        rows = chosen_rows(len(structures), self.relaxed)
        limits = "{fmax:g} eV/Å in at most {max_steps} steps or {max_seconds:g} s".format_map(LIMITS)
        how = f"positions relaxed by {EVALUATOR}, BFGS to {limits}; {part_of_the_samples(self.relaxed)}"
        before = structures[rows]
        lots = None if kept is None else kept.made_from(before, f"{how}; {self.reward.max_iterations}")
        after, notes = relax_in_lots(before, partial(self._relax, relaxing), lots)
        checked, found = self.checker.check(after), self._evaluated(after, kept)
        places = rows.tolist()
        return evaluate_relaxed(
            self._metrics(after, checked, found),
            before,
            after,
            ([records[row] for row in places], checked),
            ([results[row] for row in places], found),
            notes,
            how,
        )

    def _checked(
        self,
        structures: Structures,
        records: Sequence[RdkitRecord],
        results: Sequence[Evaluation],
        checker: Executor,
        kept: KeptSamples | None,
    ) -> Scorecard[CheckedPoses]:
        """Some samples, by PoseBusters."""
        rows = chosen_rows(len(structures), self.poses)
        chosen, places = structures[rows], rows.tolist()
        metrics = self._metrics(chosen, [records[row] for row in places], [results[row] for row in places])
        how = f"as sampled; {part_of_the_samples(self.poses)}"
        return by_pose_checks(metrics, check_poses(chosen, checker, kept, self.profile), how)

    def _relax(self, relaxing: Executor, structures: Structures) -> Noted:
        """Each molecule where its relaxation ended, and why that is no minimum; as it was, if nothing could be done."""
        geometries = split(structures)
        notes = check_geometries(structures, self.force_field.elements)
        sound = [row for row, reason in enumerate(notes) if reason is None]
        positions = structures.positions.clone()
        for row, outcome in zip(sound, relaxing.map([geometries[row] for row in sound]), strict=True):
            notes[row] = outcome.reason
            if outcome.reason is None:
                ended, notes[row] = outcome.value
                positions[row, : len(ended)] = torch.from_numpy(ended).to(positions.dtype)
        return replace(structures, positions=positions), tuple(notes)

    def _again(
        self,
        metrics: MoleculeScorecard,
        structures: Structures,
        second: tuple[str, ForceField],
        kept: KeptSamples | None,
    ) -> Scorecard[SecondJudged]:
        """What the second force field says, in lots, which are kept."""
        name, force_field = second
        results = evaluate_in_lots(force_field, structures, kept, name, self._lot, "second judge")
        return by_second_judge(metrics, structures, results, name)

    def _by_physics(self, results: Sequence[Evaluation], structures: Structures, prompts: Prompts) -> Tensor:
        """The total reward, (B,), out of what the force field said."""
        table = score_physics(stack_results(results, structures), structures, prompts.group_ids.cpu(), self.reward)
        return table.diagnostics["reward"]

    def _totals(self, structures: Structures, prompts: Prompts) -> Tensor:
        """The training's total reward, (B,)."""
        assert self._training is not None
        reward, stages = self._training()
        with closing(reward):
            return total_reward(reward, stages, structures, prompts)

    def columns(self, judged: Judged) -> SampleColumns:
        """See `Panel`."""
        ids, further = judged.samples.ids, judged.further
        found = dict(molecule_columns(judged.metrics.samples, ids))
        if "second judge" in further:
            found |= second_judge_molecule_columns(further["second judge"].samples)
        if "relaxed" in further:
            rows = chosen_rows(len(ids), self.relaxed).numpy()
            found |= at_rows(relaxed_molecule_columns(further["relaxed"].samples), rows, len(ids))
        if "PoseBusters" in further:
            rows = chosen_rows(len(ids), self.poses).numpy()
            found |= at_rows(pose_columns(further["PoseBusters"].samples), rows, len(ids))
        return found

    def write(self, folder: Path, name: str, judged: Judged) -> None:
        """SDF and extended XYZ."""
        write_extxyz(folder / f"{name}.extxyz", judged.samples)
        write_sdf(folder / f"{name}.sdf", judged.samples)

    def close(self) -> None:
        """End the workers."""
        self.force_field.close()
        self.checker.close()
        for executor in (self._relaxing, self._poses):
            if executor is not None:
                executor.close()
        if self.second is not None:
            self.second[1].close()
        if self.own is not None:
            self.own.close()
