"""The judges of molecules: GFN2-xTB and RDKit in worker processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from atomrl.chemistry.rdkit import MoleculeChecker
from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.config.molecules import MoleculeReward
from atomrl.core.prompts import ungrouped
from atomrl.core.protocols import ForceField, Reward
from atomrl.core.records import Prompts, Structures
from atomrl.core.stages import Stage, total_reward
from atomrl.evaluation.best_of import best_of_n
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.evaluation.molecules import MoleculeScorecard, by_second_judge, evaluate_molecules, with_components
from atomrl.evaluation.panel import Judged, Panel
from atomrl.export.molecules import Annotated, write_extxyz, write_sdf
from atomrl.force_fields.base import Evaluation
from atomrl.force_fields.xtb import XTBForceField, atom_energies
from atomrl.measures.forces import stack_results
from atomrl.rewards.force_energy import score_physics
from atomrl.rewards.reinforce import ReinforceReward
from atomrl.workers.executor import Workers
from atomrl.workers.local import as_workers

EVALUATOR = "GFN2-xTB"


class MoleculePanel(Panel):
    """Profile `edm-2022`.

    Args:
        reward: by which `judge_best` chooses; the documented defaults if None.
        workers: of the run, or a number of processes; one per core that this process may use if None.
        timeout: seconds that one molecule may take.
        own: the user's components; each gets a row of the table.
        second: another force field, whose forces stand in a table of their own, and its name.
        training: makes the training's reward and its stages, by which `judge_best` chooses where they are not what this
            panel computes anyway.
    """

    def __init__(
        self,
        reward: MoleculeReward | None = None,
        workers: Workers | int | None = None,
        timeout: float = 10.0,
        own: ReinforceReward | None = None,
        second: tuple[str, ForceField] | None = None,
        training: Callable[[], tuple[Reward, Sequence[Stage]]] | None = None,
    ) -> None:
        workers = as_workers(workers)
        self.reward = reward or MoleculeReward()
        self.force_field = XTBForceField(workers, timeout, self.reward.max_iterations)
        self.checker = MoleculeChecker(workers, timeout)
        self.known = TrainingSmiles.load()
        self.own, self.second, self._training = own, second, training

    def judge(
        self,
        structures: Structures,
        kept: KeptSamples | None = None,
        results: Sequence[Evaluation] | None = None,
    ) -> Judged:
        """Judge molecules; results of the force field that are known already are not computed again."""
        structures = structures.to(torch.device("cpu"))
        records = self.checker.check(structures)
        results = self.force_field.evaluate(structures) if results is None else results
        metrics = evaluate_molecules(
            structures,
            records,
            results,
            references=atom_energies(),
            training=self.known,
            evaluator=EVALUATOR,
        )
        if self.own is not None:
            table = self.own.score(structures, ungrouped(structures))
            metrics = with_components(metrics, {name: table.diagnostics[f"raw_{name}"] for name in self.own.names})
        ids = [f"{row:05d}" for row in range(len(structures))]
        return Judged(metrics, Annotated(structures, ids, records, results), self._again(metrics, structures))

    def judge_best(self, structures: Structures, prompts: Prompts, n: int, kept: KeptSamples | None = None) -> Judged:
        """Keep the best of each n by the total reward, and judge those."""
        structures = structures.to(torch.device("cpu"))
        results = None if self._training is not None else self.force_field.evaluate(structures)
        totals = (
            self._totals(structures, prompts) if results is None else self._by_physics(results, structures, prompts)
        )
        rows = best_of_n(totals.numpy(), n)
        chosen = None if results is None else [results[row] for row in rows]
        return self.judge(structures[torch.from_numpy(rows)], kept, chosen)

    def _again(self, metrics: MoleculeScorecard, structures: Structures) -> dict[str, MoleculeScorecard]:
        """What the second force field says, if there is one."""
        if self.second is None:
            return {}
        name, force_field = self.second
        return {"second judge": by_second_judge(metrics, structures, force_field.evaluate(structures), name)}

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

    def write(self, folder: Path, name: str, judged: Judged) -> None:
        """SDF and extended XYZ."""
        write_extxyz(folder / f"{name}.extxyz", judged.samples)
        write_sdf(folder / f"{name}.sdf", judged.samples)

    def close(self) -> None:
        """End the workers."""
        self.force_field.close()
        self.checker.close()
        if self.second is not None:
            self.second[1].close()
        if self.own is not None:
            self.own.close()
