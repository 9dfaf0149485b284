"""One object hands out the executors of a run, and they share its cores."""

import threading
import venv
from pathlib import Path

import pytest

from atomrl.util.errors import UserError
from atomrl.workers.budget import Budget
from atomrl.workers.executor import Outcome
from atomrl.workers.local import LocalWorkers, as_workers


@pytest.fixture(autouse=True)
def _tasks_importable(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)


def test_a_pool_has_all_cores_while_the_others_are_idle():
    budget = Budget(4)
    assert budget.claim("xtb", busy=0, wanted=3) == 3
    assert budget.claim("xtb", busy=3, wanted=9) == 4
    assert budget.claim("xtb", busy=4, wanted=0) == 0
    assert budget.claim("rdkit", busy=0, wanted=9) == 4


def test_a_pool_that_comes_later_gets_one_worker_at_once_and_the_other_gives_way():
    budget = Budget(4)
    budget.claim("xtb", busy=0, wanted=9)
    assert budget.claim("rdkit", busy=0, wanted=9) == 1
    assert budget.claim("xtb", busy=3, wanted=9) == 3
    assert budget.claim("rdkit", busy=1, wanted=9) == 1
    budget.claim("xtb", busy=0, wanted=0)
    assert budget.claim("rdkit", busy=1, wanted=9) == 4


def test_two_busy_executors_share_the_processes():
    """Two pools of two workers each, both with work: together they keep two processes busy, not four."""
    workers = LocalWorkers(2)
    with workers.executor("pool_tasks:span", 20) as one, workers.executor("pool_tasks:span", 20) as two:
        one.map([0.0] * 4)
        two.map([0.0] * 4)  # all four processes are warm
        spans = []
        threads = [
            threading.Thread(target=lambda pool=pool: spans.extend(o.value for o in pool.map([0.1] * 10)))
            for pool in (one, two)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(one.pids()) == len(two.pids()) == 2
    times = sorted(moment for span in spans for moment in span)[4:-4]
    crowd = [sum(begin < moment < end for begin, end in spans) for moment in times]
    assert sum(count > 2 for count in crowd) <= len(crowd) / 4  # for the moment in which the second one comes


def test_another_environment(tmp_path):
    """Its interpreter runs the task, with this package and nothing that is installed beside it."""
    venv.create(tmp_path / "bare")
    workers = LocalWorkers(1).limited(1).in_environment(str(tmp_path / "bare" / "bin" / "python"))
    with workers.executor("atomrl.workers.worker:load_task", 60) as executor:
        found, numpy = executor.map(["sys:prefix", "numpy:array"])
    assert found == Outcome(str(tmp_path / "bare"), None)
    assert numpy.reason == "error: ModuleNotFoundError: No module named 'numpy'"
    with pytest.raises(UserError, match="python=nowhere/python: no such program"):
        LocalWorkers(1).in_environment("nowhere/python")


def test_who_needs_few_gets_few():
    few = LocalWorkers(4).limited(1)
    assert (few.count, LocalWorkers(2).limited(3).count) == (1, 2)
    with few.executor("pool_tasks:double", 10) as pool:
        assert pool.map(range(5)) == [Outcome(2 * item, None) for item in range(5)]
        assert len(pool.pids()) == 1


def test_a_number_stands_for_local_workers(monkeypatch):
    monkeypatch.setattr("atomrl.workers.local.cores", lambda: 7)
    workers = LocalWorkers(3)
    assert as_workers(workers) is workers
    assert (as_workers(2).count, as_workers(None).count) == (2, 7)
    with pytest.raises(UserError, match="at least 1, got 0"):
        as_workers(0)


def test_the_time_to_start_is_that_of_all_pools():
    with (
        LocalWorkers(1, start_timeout=0.5).executor("slow_task:never", 60) as pool,
        pytest.raises(UserError, match=r"not ready after 0\.5 s"),
    ):
        pool.map([1])
