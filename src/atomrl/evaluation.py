"""Sampling and judging: fresh molecules from a base and a trained model, side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from atomrl.checkpoints.backbone import Backbone
from atomrl.chemistry.export import Annotated, write_extxyz, write_sdf
from atomrl.chemistry.rdkit import MoleculeChecker
from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.config import Config, RewardSection
from atomrl.files import write_whole
from atomrl.force_fields.base import Evaluation
from atomrl.force_fields.xtb import XTBForceField, atom_energies
from atomrl.metrics.best_of import best_of_n
from atomrl.metrics.molecules import MoleculeMetrics, evaluate_molecules
from atomrl.metrics.table import Column, Comparison
from atomrl.policies.molecule import MoleculePolicy
from atomrl.progress import bar
from atomrl.prompts import PromptPlan, SizeDistribution
from atomrl.records import Bucket, Structures, Trajectory
from atomrl.rewards.base import stack_results
from atomrl.rewards.force_energy import score_physics
from atomrl.rollout import RolloutConfig, rollout

EVALUATOR = "GFN2-xTB"
REWARDED = {
    "force": ("rms_force_median", "rms_force_mean"),
    "energy": ("energy_per_atom_median", "energy_per_atom_mean"),
    "stability": ("atom_stability", "molecule_stability"),
}
"""Metrics that a reward channel pays for."""


@dataclass(frozen=True)
class SamplePlan:
    """Which molecules to draw.

    Attributes:
        count: molecules.
        time_step: T.
        seed: of sizes and noise; the same for every model that is compared.
        micro_batch_size: molecules that the sampler sees at once.
    """

    count: int
    time_step: int
    seed: int
    micro_batch_size: int = 64


@dataclass(frozen=True)
class Judged:
    """Molecules and every judge's verdict.

    Attributes:
        annotated: the molecules, with RDKit's and the force field's results.
        metrics: the summary.
    """

    annotated: Annotated
    metrics: MoleculeMetrics


class Judges:
    """The force field and RDKit in worker processes; use it in a `with`."""

    def __init__(self, workers: int | None = None, timeout: float = 10.0) -> None:
        count = workers or os.cpu_count() or 1
        self.force_field = XTBForceField(count, timeout)
        self.checker = MoleculeChecker(count, timeout)
        self.training = TrainingSmiles.load()

    def judge(self, structures: Structures, results: Sequence[Evaluation] | None = None) -> Judged:
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
        return Judged(Annotated(structures, ids, records, results), metrics)

    def close(self) -> None:
        """End the workers."""
        self.force_field.close()
        self.checker.close()


@contextmanager
def judges(workers: int | None = None) -> Iterator[Judges]:
    """Judges that are closed at the end."""
    panel = Judges(workers)
    try:
        yield panel
    finally:
        panel.close()


def sample(backbone: Backbone, plan: SamplePlan, device: torch.device, description: str = "sample") -> Structures:
    """Draw molecules; sizes from the backbone's histogram. Rows are in order of size."""
    return _draw(backbone, plan, 1, device, description).structures.to(torch.device("cpu"))


def best_of(
    backbone: Backbone, plan: SamplePlan, n: int, reward: RewardSection, panel: Judges, device: torch.device
) -> Judged:
    """The control: draw n times as many molecules and keep the best of each n by the training's total reward.

    Every block of n shares a size, drawn as for the other columns, so that the sizes stay comparable.
    """
    trajectory = _draw(backbone, plan, n, device, f"best of {n}")
    structures = trajectory.structures.to(torch.device("cpu"))
    results = panel.force_field.evaluate(structures)
    table = score_physics(stack_results(results, structures), structures, trajectory.group_ids.cpu(), reward)
    rows = best_of_n(table.diagnostics["reward"].numpy(), n)
    return panel.judge(structures[torch.from_numpy(rows)], [results[row] for row in rows])


def _draw(backbone: Backbone, plan: SamplePlan, each: int, device: torch.device, description: str) -> Trajectory:
    """Draw `each` molecules of every size that the plan draws, with a progress bar; nothing but them is kept."""
    policy = MoleculePolicy(backbone.network).to(device).eval()
    prompts = PromptPlan(SizeDistribution(backbone.sizes), plan.count, each, plan.seed).prompts(0).to(device)
    config = RolloutConfig(plan.time_step, max(each, plan.micro_batch_size), train_steps=0)
    with bar(range(len(prompts)), description, total=len(prompts)) as progress:

        def advance(bucket: Bucket) -> None:
            progress.update(len(bucket.prompts))

        return rollout(policy, prompts, config, on_bucket=advance)


def rewarded_metrics(config: Config) -> set[str]:
    """Metrics that a training with this configuration is paid for."""
    reward, weights = config.reward, config.train.channel_weights
    if reward.type == "dummy":
        return set()
    paid = {name for channel, names in REWARDED.items() if weights.get(channel, 0) > 0 for name in names}
    terms = (
        reward.stability_weight,
        reward.atom_stability_weight,
        reward.valence_underbond_weight,
        reward.valence_overbond_weight,
        reward.valence_underbond_soft_weight,
        reward.valence_overbond_soft_weight,
    )
    if any(terms) and reward.stability_channel == "force":
        paid |= set(REWARDED["stability"])
    return paid


def compare(judged: Mapping[str, Judged], rewarded: set[str], seed: int, command: str, folder: Path) -> Comparison:
    """Write evaluation.md, evaluation.json and the molecules of every column (SDF, extxyz) into a folder.

    Args:
        judged: by the column's heading; the first is what the others are compared with.
        rewarded: metrics that the training was paid for.
        seed: of the samples.
        command: what a reader types to get the same table.
        folder: is made if it is not there.
    """
    columns = [Column(label, verdict.metrics, (seed,), command) for label, verdict in judged.items()]
    comparison = Comparison.of(columns, rewarded)
    for label, verdict in judged.items():
        name = label.replace(" ", "_")
        write_extxyz(folder / f"{name}.extxyz", verdict.annotated)
        write_sdf(folder / f"{name}.sdf", verdict.annotated)
    write_whole(folder / "evaluation.json", comparison.json_text())
    write_whole(folder / "evaluation.md", comparison.markdown())
    return comparison
