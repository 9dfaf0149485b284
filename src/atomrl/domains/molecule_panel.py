"""The judges of molecules: GFN2-xTB and RDKit in worker processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from atomrl.chemistry.rdkit import MoleculeChecker
from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.config.molecules import MoleculeReward
from atomrl.core.records import Prompts, Structures
from atomrl.evaluation.best_of import best_of_n
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.evaluation.molecules import evaluate_molecules
from atomrl.evaluation.panel import Judged, Panel
from atomrl.export.molecules import Annotated, write_extxyz, write_sdf
from atomrl.force_fields.base import Evaluation
from atomrl.force_fields.xtb import XTBForceField, atom_energies
from atomrl.measures.forces import stack_results
from atomrl.rewards.force_energy import score_physics
from atomrl.util.cpu_count import cores

EVALUATOR = "GFN2-xTB"


class MoleculePanel(Panel):
    """Profile `edm-2022`.

    Args:
        reward: by which `judge_best` chooses; the documented defaults if None.
        workers: processes of each judge; one per core that this process may use if None.
        timeout: seconds that one molecule may take.
    """

    def __init__(self, reward: MoleculeReward | None = None, workers: int | None = None, timeout: float = 10.0) -> None:
        count = cores() if workers is None else workers
        self.reward = reward or MoleculeReward()
        self.force_field = XTBForceField(count, timeout, self.reward.max_iterations)
        self.checker = MoleculeChecker(count, timeout)
        self.training = TrainingSmiles.load()

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
            training=self.training,
            evaluator=EVALUATOR,
        )
        ids = [f"{row:05d}" for row in range(len(structures))]
        return Judged(metrics, Annotated(structures, ids, records, results))

    def judge_best(self, structures: Structures, prompts: Prompts, n: int, kept: KeptSamples | None = None) -> Judged:
        """Keep the best of each n by the total reward, and judge those."""
        structures = structures.to(torch.device("cpu"))
        results = self.force_field.evaluate(structures)
        table = score_physics(stack_results(results, structures), structures, prompts.group_ids.cpu(), self.reward)
        rows = best_of_n(table.diagnostics["reward"].numpy(), n)
        return self.judge(structures[torch.from_numpy(rows)], kept, [results[row] for row in rows])

    def write(self, folder: Path, name: str, judged: Judged) -> None:
        """SDF and extended XYZ."""
        write_extxyz(folder / f"{name}.extxyz", judged.samples)
        write_sdf(folder / f"{name}.sdf", judged.samples)

    def close(self) -> None:
        """End the workers."""
        self.force_field.close()
        self.checker.close()
