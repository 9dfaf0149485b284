"""Whole runs in which scoring goes wrong: each failure is NaN with its reason, counted in the log, and the run goes on.

Bad samples are put in the place of what the policy decoded; rollout, worker pool, update and log are the real ones.
"""

import json
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from atomrl.cli import main
from atomrl.config import load_config
from atomrl.core.advantages import Advantages
from atomrl.core.objectives.fed_grpo import FedGRPO
from atomrl.core.protocols import Collective
from atomrl.core.records import RewardTable, Structures
from atomrl.force_fields.xtb import XTBForceField
from atomrl.policies.molecule import MoleculePolicy
from atomrl.training.run import train

sys.path.insert(0, str(Path(__file__).parent))
from small_backbone import TINY, write

METHANOL = [
    [0.0, 0.0, 0.0],
    [1.42, 0.0, 0.0],
    [1.72, 0.9, 0.0],
    [-0.36, 1.03, 0.0],
    [-0.36, -0.51, 0.89],
    [-0.36, -0.51, -0.89],
]
SCATTERED = [
    [4.15, 1.3, 0.76],
    [0.99, 2.16, 2.56],
    [0.97, 3.89, 4.34],
    [1.58, 2.54, 2.97],
    [3.61, 0.74, 1.4],
    [3.65, 2.84, 4.49],
]
COH4, CNH4 = [6, 8, 1, 1, 1, 1], [6, 7, 1, 1, 1, 1]
Molecule = tuple[list[int], torch.Tensor]


def methanol(stretch: float = 1.0, moved_to: float | None = None) -> Molecule:
    """Methanol, all lengths times `stretch`; its last hydrogen moved to this place on the x axis, if one is given."""
    positions = torch.tensor(METHANOL) * stretch
    if moved_to is not None:
        positions[5] = torch.tensor([moved_to, 0.0, 0.0])
    return COH4, positions


GOOD = [methanol(), methanol(1.03), methanol(1.06), methanol(1.09)]
RADICAL = (CNH4, torch.tensor(METHANOL))  # CH3NH: 17 electrons
BAD = {
    "overlap": methanol(moved_to=0.1),
    "exploded": methanol(moved_to=1e4),
    "nonfinite": methanol(moved_to=math.nan),
    "scf": ([8, 8, 8, 7, 6, 9], torch.tensor(SCATTERED)),  # does not converge in 100 iterations
}
EACH = len(GOOD) + len(BAD)
RUN = [
    "dataloader.sample_group_size=2",
    f"dataloader.each_prompt_sample={EACH}",
    "dataloader.epoches=3",
    "dataloader.nodes_dist_focus_min=6",
    "dataloader.nodes_dist_focus_max=6",
    "dataloader.nodes_dist_focus_multiplier=1e12",  # all prompts ask for six atoms
    "reward.type=xtb",
    "reward.workers=2",
]


class Watched:
    """What the run's stages passed on, iteration by iteration."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scores: list[tuple[RewardTable, Advantages, torch.Tensor]] = []
        honest = FedGRPO.advantages

        def advantages(
            objective: FedGRPO,
            table: RewardTable,
            group_ids: torch.Tensor,
            active: torch.Tensor,
            collective: Collective | None = None,
        ) -> Advantages:
            answer = honest(objective, table, group_ids, active, collective)
            self.scores.append((table, answer, group_ids))
            return answer

        monkeypatch.setattr(FedGRPO, "advantages", advantages)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def plant(monkeypatch: pytest.MonkeyPatch, choose: Callable[[int], Molecule | None]) -> None:
    """Let `choose(sample id)` say what was decoded; None leaves what the policy decoded."""
    honest = MoleculePolicy.decode

    def decode(policy: MoleculePolicy, latents, mask, prompts, draw) -> Structures:
        drawn = honest(policy, latents, mask, prompts, draw)
        numbers, positions = drawn.numbers.clone(), drawn.positions.clone()
        for row, sample in enumerate(prompts.sample_ids.tolist()):
            chosen = choose(sample)
            if chosen is not None:
                numbers[row], positions[row] = torch.tensor(chosen[0]), chosen[1]
        return Structures(numbers, positions, drawn.mask)

    monkeypatch.setattr(MoleculePolicy, "decode", decode)


def run(tmp_path: Path, *overrides: str) -> list[dict[str, float | None]]:
    """The log of a run that must reach its last iteration and leave a finite model."""
    backbone = write(tmp_path / "backbone")
    where = [f"model.backbone={backbone}", f"save_path={tmp_path / 'run'}"]
    folder = train(load_config("demo", [*TINY, *RUN, *where, *overrides]), "demo")
    checkpoint = torch.load(folder / "checkpoint_latest.pth", weights_only=True)
    assert checkpoint["atomrl"]["iteration"] == 2
    assert all(bool(torch.isfinite(value).all()) for value in checkpoint["state_dict"].values())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    return rows


def failures(row: dict[str, float | None]) -> dict[str, float | None]:
    """Counts of failed scores by reason."""
    return {name.removeprefix("failed_"): count for name, count in row.items() if name.startswith("failed_")}


@pytest.mark.parametrize("failed", ["worst", "mask"])
def test_bad_geometries(failed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: Watched) -> None:
    molecules = [*GOOD[:3], RADICAL, *BAD.values()]
    plant(monkeypatch, lambda sample: molecules[sample % EACH])
    rows = run(tmp_path, f"train.failed={failed}", f"log.rdkit={'true' if failed == 'worst' else 'false'}")
    for row in rows:
        assert failures(row) == dict.fromkeys(BAD, 2.0)  # one in each group
        assert row["failed"] == 2 * len(BAD)
        assert row["odd_electrons"] == 1 / EACH
        assert math.isfinite(row["reward"] or math.nan)
        assert row["grad_norm"] > 0
    expected = (None,) * len(GOOD) + tuple(BAD)
    bad = torch.tensor([reason is not None for reason in expected])
    for table, advantages, group_ids in watched.scores:
        assert table.reasons == 2 * expected
        for group in group_ids.unique():
            rows_of = group_ids == group
            for name in ("force", "energy"):
                values, learned = table.scored[name][rows_of], advantages.channels[name][rows_of]
                assert torch.equal(values.isnan(), bad)  # missing, not an invented number; the radical is scored
                if failed == "mask":
                    assert torch.equal(learned[bad], torch.zeros(len(BAD)).double())
                else:
                    worst = learned[~bad][values[~bad].argmin()]
                    assert torch.equal(learned[bad], worst.expand(len(BAD)))
            assert advantages.total[rows_of][0] > advantages.total[rows_of][2]  # the sound learn from each other


def test_a_run_in_which_every_score_fails_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: Watched
) -> None:
    plant(monkeypatch, lambda sample: BAD["overlap"])
    rows = run(tmp_path)
    for row in rows:
        assert failures(row) == {"overlap": 2.0 * EACH}
        assert row["reward"] is None
        assert row["zero_spread_groups"] == 2
    assert not any(bool(advantages.total.any()) for _, advantages, _ in watched.scores)


@pytest.mark.parametrize(("size", "reason"), [(math.inf, "nonfinite"), (1e9, "exploded")])
def test_latents_that_run_away(
    size: float, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: Watched
) -> None:
    """Not only the structure: the whole walk of a sample is out of range, and the update must leave it out too."""
    honest = MoleculePolicy.prior

    def prior(policy: MoleculePolicy, prompts, draw):
        latents, mask = honest(policy, prompts, draw)
        return torch.where((prompts.sample_ids % EACH == 0)[:, None, None], latents * size, latents), mask

    monkeypatch.setattr(MoleculePolicy, "prior", prior)
    plant(monkeypatch, lambda sample: GOOD[sample % 4] if sample % EACH else None)
    for row in run(tmp_path):
        assert failures(row) == {reason: 2.0}
        assert row["masked_samples"] == 2
        assert row["grad_norm"] > 0
    for table, advantages, _ in watched.scores:
        lost = torch.tensor([found is not None for found in table.reasons])
        assert torch.equal(advantages.total[lost], torch.zeros(2).double())


def test_a_run_that_explodes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Most of the samples are lost from the second iteration on, in the last one all: it warns once, then it stops."""
    lost_by_iteration = [3, 4, 5, 6]  # of 6
    honest = MoleculePolicy.prior

    def prior(policy: MoleculePolicy, prompts, draw):
        latents, mask = honest(policy, prompts, draw)
        lost = prompts.sample_ids % 6 < lost_by_iteration[prompts.iteration]
        return torch.where(lost[:, None, None], latents * 1e9, latents), mask

    monkeypatch.setattr(MoleculePolicy, "prior", prior)
    words = ["train", *TINY, f"model.backbone={write(tmp_path / 'backbone')}", f"save_path={tmp_path / 'run'}"]
    with caplog.at_level(logging.WARNING, "atomrl"), pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == 1
    assert "iteration 1: 4 of 6 samples (67 %) exploded" in warned[0]
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert "all 6 samples of iteration 3 exploded" in error
    for remedy in ("train.learning_rate", "distance to the initial model", "model.time_step"):
        assert remedy in warned[0]
        assert remedy in error
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["masked_samples"] for row in rows] == [3, 4, 5]
    assert torch.load(tmp_path / "run" / "checkpoint_latest.pth", weights_only=True)["atomrl"]["iteration"] == 2


def test_a_model_that_explodes_before_it_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No learning rate is to blame, and there are no earlier weights."""
    places = [f"model.backbone={write(tmp_path / 'backbone')}", f"save_path={tmp_path / 'run'}"]
    with pytest.raises(SystemExit) as caught:
        main(["train", *TINY, *places, "reward.type=dummy", "train.exploded_above=1e-6"])
    assert caught.value.code == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert "all 6 samples of iteration 0 exploded" in error
    assert "nothing is trained yet, so the model itself does this: raise model.time_step" in error
    assert "learning_rate" not in error


def scoring_workers() -> set[int]:
    """Process ids of this process's children that score."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            command = (path / "cmdline").read_text()
        except FileNotFoundError:  # it ended meanwhile
            continue
        if int(parent) == os.getpid() and "atomrl.workers.worker" in command:
            found.add(int(path.name))
    return found


@pytest.mark.parametrize(("then", "reason"), [(signal.SIGKILL, "worker_died"), (None, "timeout")])
def test_a_worker_is_lost(
    then: signal.Signals | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: Watched
) -> None:
    """In the second iteration one of two workers stops, with a molecule in its hands; it may be killed there."""
    plant(monkeypatch, lambda sample: GOOD[sample % 4])
    honest = XTBForceField.evaluate
    workers: list[set[int]] = []  # after each iteration's scoring
    kept = scoring_workers()  # of other tests, see tests/kept_workers.py

    def evaluate(field: XTBForceField, structures: Structures):
        if len(workers) == 1:
            victim = min(workers[0])
            os.kill(victim, signal.SIGSTOP)  # an idle worker gets its next molecule all the same, and keeps it
            if then is not None:
                threading.Timer(2.0, os.kill, (victim, then)).start()
        results = honest(field, structures)
        workers.append(scoring_workers() - kept)
        return results

    monkeypatch.setattr(XTBForceField, "evaluate", evaluate)
    rows = run(tmp_path, "reward.timeout=4")
    assert [failures(row) for row in rows] == [{}, {reason: 1.0}, {}]
    assert len(workers[0]) == len(workers[2]) == 2
    assert min(workers[0]) not in workers[2]  # replaced
    first, during, after = (table.scored["force"] for table, _, _ in watched.scores)
    assert torch.equal(first, after)
    assert torch.equal(torch.where(during.isnan(), first, during), first)  # nobody else's score changed
    assert not scoring_workers() - kept


def test_a_nan_in_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The run stops with one line that names step and sample; what it saved reproduces it, and it can be resumed."""
    honest, poisoned = MoleculePolicy.step, []

    def step(policy: MoleculePolicy, latents, mask, transition, prompts):
        answer = honest(policy, latents, mask, transition, prompts)
        if torch.is_grad_enabled() and prompts.iteration == 1:
            poisoned.append((transition.index, int(prompts.sample_ids[3])))
            answer.mean.data[3, 0, 0] = math.nan
        return answer

    backbone = write(tmp_path / "backbone")
    words = [
        "train",
        "--config-name",
        "demo_fed_grpo",
        *TINY,
        f"model.backbone={backbone}",
        f"save_path={tmp_path / 'run'}",
    ]
    with monkeypatch.context() as patched:
        patched.setattr(MoleculePolicy, "step", step)
        with pytest.raises(SystemExit) as caught:
            main(words)
    assert caught.value.code == 1
    error = capsys.readouterr().err.strip()
    index, sample = poisoned[0]
    path = tmp_path / "run" / "nonfinite_loss.pt"
    assert len(error.splitlines()) == 1
    assert f"sample {sample} at transition {index}" in error
    assert str(path) in error
    saved = torch.load(path, weights_only=True)
    assert (saved["iteration"], saved["sample_id"], saved["transition"]) == (1, sample, index)
    assert saved["latents"].shape == saved["following"].shape
    assert bool(torch.isfinite(saved["latents"]).all())
    assert torch.load(tmp_path / "run" / "checkpoint_latest.pth", weights_only=True)["atomrl"]["iteration"] == 0
    assert not list((tmp_path / "run").glob(".*"))
    main([*words, "resume=true"])
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 4
