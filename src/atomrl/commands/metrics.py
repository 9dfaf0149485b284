"""`compute_elign_metrics.py`: what the molecules in a file are worth, seed by seed, and over all seeds."""

from __future__ import annotations

import argparse
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atomrl.chemistry.known_smiles import known_under
from atomrl.chemistry.rdkit import MoleculeChecker
from atomrl.commands.rollout import molecule_run
from atomrl.core.records import Structures
from atomrl.evaluation.molecules import MoleculeScorecard, evaluate_molecules
from atomrl.evaluation.repair import RepairPlan, repair
from atomrl.evaluation.table import json_number
from atomrl.export.rollout_file import RolloutFile
from atomrl.force_fields.xtb import NAME, XTBForceField, atom_energies
from atomrl.measures.bootstrap import Estimate
from atomrl.training.run_directory import described_run, find_run
from atomrl.util.closeable import Closing
from atomrl.util.command_parser import CommandParser
from atomrl.util.errors import UserError
from atomrl.util.files import require_writable, write_json, write_whole
from atomrl.workers.local import as_workers

SCRIPT = "compute_elign_metrics.py"
SAMPLED, REPAIRED = "as_sampled", "repaired"


def metrics_command(words: Sequence[str]) -> None:
    """Judge and write.

    Raises:
        UserError: no such run or file, a run on crystals, or repair without a force field.
    """
    options = _parser().parse_args(words)
    plan = _repair_plan(options)
    _, described = find_run(options.run_dir)
    config: Any = molecule_run(described_run(described, options.trust_code, "--trust-code"), described)
    file = RolloutFile.concatenate([RolloutFile.read(path) for path in options.samples])
    for path in (options.output, options.save_raw):
        if path is not None:
            require_writable(path.parent, f"the folder of {path}")
    with _Judges(config, options.skip_mlff_metrics) as judges:
        columns: dict[str, dict[int, MoleculeScorecard]] = {SAMPLED: {}}
        repaired = 0
        for seed in sorted(set(file.seeds.tolist())):
            samples = file.structures[(file.seeds == seed).nonzero().squeeze(1)]
            card = columns[SAMPLED][seed] = judges.judge(samples)
            if plan.used:
                rows = plan.chosen(torch.from_numpy(card.samples.valid), torch.from_numpy(card.samples.stable))
                repaired += len(rows)
                mended = repair(samples, rows, plan, judges.force_field.evaluate)
                columns.setdefault(REPAIRED, {})[seed] = judges.judge(mended)
    first = next(iter(columns[SAMPLED].values()))
    write_json(
        options.output,
        {
            "command": shlex.join(["python", SCRIPT, *words]),
            "samples": file.about,
            "profile": first.profile,
            "evaluator": first.evaluator,
            "conditions": dict(first.conditions),
            **({"repair": {**asdict(plan), "molecules": repaired}} if plan.used else {}),
            **{column: _summary(cards) for column, cards in columns.items()},
        },
    )
    if options.save_raw is not None:
        write_whole(options.save_raw, "".join(_rows(columns)))
    _say(columns, options.output)


class _Judges(Closing):
    """RDKit, the known molecules and, unless it is left out, GFN2-xTB.

    Args:
        config: of the run.
        skip: leave the force field out.
    """

    def __init__(self, config: Any, skip: bool) -> None:
        workers = as_workers(config.reward.workers)
        self._stack, self._skip = ExitStack(), skip
        self.force_field = XTBForceField(workers, config.reward.timeout, config.reward.max_iterations)
        self._profile = config.evaluation.profile
        self._checker = MoleculeChecker(workers, config.reward.timeout, self._profile)
        self._known = known_under(self._profile, config.dataloader.known, workers)
        for judge in (self.force_field, self._checker):
            self._stack.callback(judge.close)

    def judge(self, structures: Structures) -> MoleculeScorecard:
        """The verdict on molecules."""
        return evaluate_molecules(
            structures,
            self._checker.check(structures),
            None if self._skip else self.force_field.evaluate(structures),
            references=atom_energies(),
            training=self._known,
            evaluator=NAME,
            profile=self._profile,
        )

    def close(self) -> None:
        """End the workers."""
        self._stack.close()


def _repair_plan(options: argparse.Namespace) -> RepairPlan:
    plan = RepairPlan(
        options.repair_invalid,
        options.repair_unstable,
        options.repair_add_h,
        options.repair_steps,
        options.repair_alpha,
    )
    if plan.steps < 0 or not (math.isfinite(plan.alpha) and plan.alpha > 0):
        raise UserError(
            f"--repair-steps {plan.steps} --repair-alpha {plan.alpha}: must be at least 0, and a number above 0"
        )
    if plan.add_hydrogens and not plan.used:
        raise UserError("--repair-add-h needs --repair-invalid or --repair-unstable, which say what is repaired")
    return plan


def _summary(cards: Mapping[int, MoleculeScorecard]) -> dict[str, Any]:
    """Each seed's metrics, and their mean and standard deviation over the seeds."""
    values = _values(cards)
    return {
        "seeds": {
            str(seed): {
                "samples": len(card.samples),
                "metrics": {name: _numbers(asdict(estimate)) for name, estimate in card.summary.items()},
                "failures": {judge: dict(reasons) for judge, reasons in card.failures.items()},
            }
            for seed, card in cards.items()
        },
        "mean": _numbers({name: float(column.mean()) for name, column in values.items()}),
        "std": _numbers({name: _spread(column) for name, column in values.items()}),
    }


def _values(cards: Mapping[int, MoleculeScorecard]) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Every metric that some seed has, (seeds,); NaN for a seed without it, whose molecules have no such atoms."""
    names = dict.fromkeys(name for card in cards.values() for name in card.summary)
    return {
        name: np.array([card.summary.get(name, Estimate.missing()).value for card in cards.values()]) for name in names
    }


def _spread(column: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Standard deviation over seeds (with n - 1); NaN for one seed, or where a value is not finite."""
    return float(column.std(ddof=1)) if len(column) > 1 and np.isfinite(column).all() else math.nan


def _numbers(values: Mapping[str, float]) -> dict[str, float | str | None]:
    """As JSON has them."""
    return {name: json_number(value) for name, value in values.items()}


def _rows(columns: Mapping[str, Mapping[int, MoleculeScorecard]]) -> list[str]:
    """A line of JSON for each molecule of each column."""
    lines = []
    for column, cards in columns.items():
        for seed, card in cards.items():
            held = card.samples
            for row in range(len(held)):
                numbers = {
                    "energy_ev": float(held.energies[row]),
                    "energy_per_atom_ev": float(held.energies_per_atom[row]),
                    "rms_force_ev_per_angstrom": float(held.rms_forces[row]),
                }
                line = {
                    "column": column,
                    "seed": seed,
                    "row": row,
                    "atoms": int(held.sizes[row]),
                    "heavy_atoms": int(held.heavy_atoms[row]),
                    "rings": int(held.rings[row]) if held.valid[row] else None,
                    "stable": bool(held.stable[row]),
                    "valid": bool(held.valid[row]),
                    "novel": None if held.novel is None else bool(held.novel[row]),
                    "smiles": held.smiles[row],
                    "smiles_explicit_h": held.smiles_explicit_h[row],
                    "rdkit_reason": held.rdkit_reasons[row],
                    "force_field_reason": held.force_reasons[row],
                    **_numbers(numbers),
                }
                lines.append(json.dumps(line) + "\n")
    return lines


def _say(columns: Mapping[str, Mapping[int, MoleculeScorecard]], output: Path) -> None:
    """Print the means of each column."""
    for column, cards in columns.items():
        print(f"{column.replace('_', ' ')}, {len(cards)} seeds:")
        definitions = next(iter(cards.values())).definitions
        for name, values in _values(cards).items():
            percent = definitions[name].unit == "%"
            scale, unit = (100, " %") if percent else (1, f" {definitions[name].unit}")
            spread = "" if math.isnan(_spread(values)) else f" ± {scale * _spread(values):.3g}"
            print(f"  {definitions[name].label}: {scale * values.mean():.4g}{spread}{unit}".rstrip())
    print(f"-> {output}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(prog=SCRIPT, description="judge molecules that eval_elign_rollout.py has drawn")
    parser.add_argument(
        "--run-dir",
        type=Path,
        required=True,
        help="run directory of the training, which says time-outs, known molecules and profile",
    )
    parser.add_argument(
        "--samples", type=Path, nargs="+", required=True, help="one or more files of eval_elign_rollout.py"
    )
    parser.add_argument("--output", type=Path, required=True, help="JSON file for the metrics")
    parser.add_argument("--skip-mlff-metrics", action="store_true", help="leave forces and energies out")
    parser.add_argument(
        "--repair-invalid", action="store_true", help="add a column in which invalid molecules are repaired"
    )
    parser.add_argument(
        "--repair-unstable", action="store_true", help="add a column in which unstable molecules are repaired"
    )
    parser.add_argument(
        "--repair-add-h", action="store_true", help="repair: first add the hydrogens that valences lack"
    )
    parser.add_argument(
        "--repair-steps", type=int, default=3, help="repair: steps along the forces of GFN2-xTB; default 3"
    )
    parser.add_argument(
        "--repair-alpha",
        type=float,
        default=0.01,
        help="repair: length of a step, in Å per eV/Å of force; default 0.01",
    )
    parser.add_argument("--save-raw", type=Path, help="file for a line of JSON for each molecule")
    parser.add_argument(
        "--trust-code", action="store_true", help="run code from outside the package that the run's config.yaml names"
    )
    return parser
