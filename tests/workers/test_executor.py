"""Whoever needs workers takes them from one object, and any object with the protocol's methods will do."""

from pathlib import Path

import numpy as np
import pytest

import atomrl
from atomrl.checkpoints.backbone import load_backbone
from atomrl.chemistry.rdkit import MoleculeChecker
from atomrl.config import MoleculeConfig
from atomrl.domains.molecule_panel import MoleculePanel
from atomrl.domains.molecules import MoleculeDomain
from atomrl.force_fields.xtb import XTBForceField
from atomrl.util.errors import UserError
from atomrl.workers.executor import WORKER_DIED, Executor, Outcome, Workers
from atomrl.workers.failure import Failure
from atomrl.workers.local import LocalWorkers
from atomrl.workers.worker import load_task


class Inline:
    """Runs tasks in this process, and remembers what was asked for."""

    count = 1

    def __init__(self):
        self.tasks = []
        self.closed = 0

    def executor(self, task, timeout, settings=None) -> Executor:
        self.tasks.append(task.partition(":")[0].rpartition(".")[2])
        return InlineExecutor(self, load_task(task), dict(settings or {}))

    def limited(self, most) -> Workers:
        return self

    def in_environment(self, python) -> Workers:
        raise UserError(f"{python}: all tasks run in this process")


class InlineExecutor:
    workers = 1

    def __init__(self, owner, function, settings):
        self.owner, self.function, self.settings = owner, function, settings

    def map(self, items):
        outcomes = []
        for item in items:
            try:
                outcomes.append(Outcome(self.function(item, **self.settings), None))
            except Failure as failure:
                outcomes.append(Outcome(None, failure.reason))
        return outcomes

    def map_lots(self, items, size):
        raise NotImplementedError

    def close(self):
        self.owner.closed += 1


def test_a_run_takes_all_its_executors_from_one_object():
    workers, config, domain, model = Inline(), MoleculeConfig(), MoleculeDomain(), load_backbone("edm_qm9_small")
    for part in (
        domain.reward(config, model, workers),
        domain.monitor(config, model, workers),
        domain.panel(config, model, workers),
    ):
        part.close()
    assert workers.tasks == ["gfn2", "rdkit_task", "gfn2", "rdkit_task"]
    assert workers.closed == len(workers.tasks)


def test_so_does_an_evaluation_that_relaxes():
    workers = Inline()
    MoleculePanel(workers=workers, relaxed=1).close()
    assert workers.tasks == ["gfn2", "rdkit_task", "gfn2_relax"]
    assert workers.closed == len(workers.tasks)


def test_another_kind_of_workers_gives_the_same(qm9_test):
    molecules = qm9_test[:4]
    with MoleculeChecker(1) as here, MoleculeChecker(Inline()) as there:
        assert here.check(molecules) == there.check(molecules)
    local, other = XTBForceField(1), XTBForceField(Inline())
    for one, two in zip(local.evaluate(molecules), other.evaluate(molecules), strict=True):
        np.testing.assert_allclose(one.energy, two.energy, atol=1e-8)
        assert one.reason is two.reason is None
    local.close()
    other.close()


def test_what_an_executor_says_of_a_lost_item_reaches_the_results(qm9_test, monkeypatch):
    monkeypatch.setattr(InlineExecutor, "map", lambda self, items: [Outcome(None, WORKER_DIED) for _ in items])
    with MoleculePanel(workers=Inline()) as panel:
        assert {result.reason for result in panel.force_field.evaluate(qm9_test[:3])} == {WORKER_DIED}


def test_pools_are_built_in_one_place():
    folder = Path(atomrl.__file__).parent
    builders = {path.name for path in folder.rglob("*.py") if "WorkerPool(" in path.read_text()}
    assert builders == {"pool.py", "local.py"}


@pytest.mark.parametrize("workers", [LocalWorkers(2), LocalWorkers(2).limited(1)])
def test_nothing_starts_before_it_is_needed(workers):
    field = XTBForceField(workers)
    assert field._executor.pids() == []
    field.close()
