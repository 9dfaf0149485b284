"""Run directories and evaluations, written by the package's own code from molecules and crystals of the tests."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from small_crystal_set import CRYSTALS

from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.config import load_config, to_yaml
from atomrl.core.records import Structures
from atomrl.evaluation.crystals import evaluate_crystals
from atomrl.evaluation.evaluate import SamplePlan, compare
from atomrl.evaluation.molecules import evaluate_molecules
from atomrl.evaluation.panel import Judged, Panel
from atomrl.evaluation.sample_columns import crystal_columns, molecule_columns
from atomrl.export import crystals as crystal_files
from atomrl.export import molecules as molecule_files
from atomrl.force_fields.base import Evaluation
from atomrl.measures.crystal_verdicts import CrystalVerdicts
from atomrl.structures.crystals import from_pymatgen
from atomrl.structures.molecules import split

PLAN = SamplePlan(count=8, time_step=50, seed=7)


class MoleculeWriter(Panel):
    """Writes what is judged already, as `MoleculePanel` does."""

    def judge(self, structures, kept=None, prompts=None):
        raise NotImplementedError

    judge_best = known_samples = judge

    def columns(self, judged):
        return molecule_columns(judged.metrics.samples, judged.samples.ids)

    def write(self, folder, name, judged):
        molecule_files.write_extxyz(folder / f"{name}.extxyz", judged.samples)
        molecule_files.write_sdf(folder / f"{name}.sdf", judged.samples)

    def close(self):
        """Nothing to give back."""


class CrystalWriter(MoleculeWriter):
    """The same of crystals."""

    def columns(self, judged):
        return crystal_columns(judged.metrics.samples, judged.samples.ids)

    def write(self, folder, name, judged):
        crystal_files.write_extxyz(folder / f"{name}.extxyz", judged.samples)
        crystal_files.write_cif(folder / f"{name}.cif", judged.samples)


def molecules(structures: Structures, records_of, noise: float, force: float) -> Judged:
    """Judged molecules whose atoms are off their places; forces are made up, and the first molecule has none."""
    moved = torch.randn(structures.positions.shape, generator=torch.Generator().manual_seed(0)) * noise
    structures = replace(structures, positions=structures.positions + moved * structures.mask[..., None])
    records = records_of(structures)
    results = [
        Evaluation(-10.0 * len(numbers), np.full((len(numbers), 3), force + 0.1 * row), None)
        for row, (numbers, _) in enumerate(split(structures))
    ]
    results[0] = Evaluation.failed(len(results[0].forces), "overlap")
    metrics = evaluate_molecules(
        structures,
        records,
        results,
        references=dict.fromkeys("HCNOF", -9.0),
        training=TrainingSmiles.load(),
        evaluator="made up",
        resamples=200,
    )
    ids = [f"{row:05d}" for row in range(len(structures))]
    return Judged(metrics, molecule_files.Annotated(structures, ids, records, results))


def crystals(above: float) -> Judged:
    """Judged crystals, of which the last has no energy; energies are made up."""
    structures = from_pymatgen(CRYSTALS)
    count = len(structures)
    elements, amounts = structures.numbers[structures.mask.bool()].unique(return_counts=True)
    verdicts = CrystalVerdicts(
        formulas=tuple(crystal.composition.reduced_formula for crystal in CRYSTALS),
        sizes=structures.sizes.numpy(),
        elements=dict(zip(elements.tolist(), amounts.tolist(), strict=True)),
        structure_valid=np.ones(count, dtype=bool),
        composition_valid=np.ones(count, dtype=bool),
        unique=np.ones(count, dtype=bool),
        novel=np.arange(count) % 2 == 0,
        e_above_hull=np.array([*(above + 0.05 * np.arange(count - 1)), math.inf]),
        energies_per_atom=np.array([*(-4.0 - np.arange(count - 1)), math.nan]),
        hull_holds_compound=np.ones(count, dtype=bool),
        features={},
        reasons={
            "geometry": (None,) * count,
            "matching": (None,) * count,
            "e_above_hull": (*(None,) * (count - 1), "timeout"),
        },
    )
    ids = [f"{row:05d}" for row in range(count)]
    metrics = evaluate_crystals(verdicts, evaluator="made up", novelty_set="none", resamples=200)
    return Judged(metrics, crystal_files.AnnotatedCrystals(structures, ids, verdicts.rows()))


def write_evaluation(folder: Path, judged: Mapping[str, Judged], rewarded: set[str], command: str = "atomrl") -> Path:
    """A finished evaluation."""
    is_crystals = isinstance(next(iter(judged.values())).samples, crystal_files.AnnotatedCrystals)
    compare(judged, rewarded, CrystalWriter() if is_crystals else MoleculeWriter(), PLAN, command, folder)
    return folder


def write_log(folder: Path, iterations: int = 30, slope: float = 1.0, config: str = "demo", *overrides: str) -> Path:
    """A run without an evaluation: config.yaml and metrics.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(load_config(config, list(overrides))))
    rows = [
        {"iteration": number, "reward": slope * number, "grad_norm": 1 / (1 + number), "lr": 1e-4}
        | ({"rms_force": None} if number % 2 else {"rms_force": 2.0 - 0.01 * number})
        for number in range(iterations)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
