"""The pool of worker processes: order, independence of the number of workers, and everything that goes wrong."""

import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from atomrl.util.errors import UserError
from atomrl.util.own_frames import from_here
from atomrl.workers.executor import Outcome
from atomrl.workers.pool import WorkerPool
from atomrl.workers.worker_process import Worker

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _tasks_importable(monkeypatch):
    monkeypatch.syspath_prepend(HERE)


@pytest.fixture(scope="module")
def misbehaving():
    sys.path.insert(0, str(HERE))
    with WorkerPool("pool_tasks:misbehave", workers=2, timeout=1.0) as pool:
        yield pool
    sys.path.remove(str(HERE))


def is_alive(pid):
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=10.0):
    limit = time.monotonic() + seconds
    while not condition() and time.monotonic() < limit:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("workers", [1, 3])
def test_outcomes_come_in_order(workers):
    with WorkerPool("pool_tasks:double", workers, timeout=10, settings={"factor": 3}) as pool:
        assert pool.pids() == []  # started when needed
        assert pool.map(range(50)) == [Outcome(3 * item, None) for item in range(50)]
        assert len(pool.pids()) <= workers
        assert pool.map([]) == []
        assert pool.map([7]) == [Outcome(21, None)]


def test_batches_in_the_background_do_not_mix():
    with WorkerPool("pool_tasks:double", 2, timeout=10) as pool:
        first, second = pool.submit(range(20)), pool.submit(range(100, 120))
        assert [outcome.value for outcome in second.result()] == list(range(200, 240, 2))
        assert [outcome.value for outcome in first.result()] == list(range(0, 40, 2))


def test_workers_have_one_thread_and_no_torch():
    assert "torch" in sys.modules
    torch.ones(1)
    with WorkerPool("pool_tasks:surroundings", 1, timeout=10) as pool:
        has_torch, omp, mkl, pid = pool.map([None])[0].value
    assert (has_torch, omp, mkl) == (False, "1", "1")
    assert pid != os.getpid()


@pytest.mark.parametrize(
    ("item", "reason"),
    [("die", "worker_died"), ("exit", "worker_died"), ("sleep", "timeout"), ("fail", "foreseen")],
)
def test_only_the_bad_item_is_lost(misbehaving, item, reason):
    items = ["a", "b", item, "c", "d", "chatter", "e"]
    expected = [Outcome(None, reason) if entry == item else Outcome(entry, None) for entry in items]
    assert misbehaving.map(items) == expected


@pytest.mark.parametrize(("item", "reason"), [("die", "worker_died"), ("sleep", "timeout")])
@pytest.mark.parametrize("following", ["small", "x" * 1_000_000], ids=["sent ahead", "too large to be sent ahead"])
def test_what_waits_behind_a_lost_item_is_not_lost(item, reason, following):
    with WorkerPool("pool_tasks:misbehave", workers=1, timeout=1.0) as pool:
        outcomes = pool.map(["a", item, *[following] * 4, item, "b"])
    lost = Outcome(None, reason)
    assert outcomes == [Outcome("a", None), lost, *[Outcome(following, None)] * 4, lost, Outcome("b", None)]


TASKS = HERE / "pool_tasks.py"
LINE = 1 + TASKS.read_text().splitlines().index('            raise ZeroDivisionError("a bug\\nin two lines")')
BUG = f"error: ZeroDivisionError: a bug in two lines ({from_here(str(TASKS))}, line {LINE}, in misbehave)"
"""With the line that it came from."""


def test_unforeseen_exception_is_reported_in_one_line(misbehaving):
    raised, fine, unpicklable = misbehaving.map(["raise", "a", "unpicklable"])
    assert raised == Outcome(None, BUG)
    assert fine == Outcome("a", None)
    assert unpicklable.reason.startswith("error: ")


def test_many_bad_items_in_a_row(misbehaving):
    items = ["die", "fail", "sleep", "die", "raise", "sleep", "a"]
    reasons = [outcome.reason for outcome in misbehaving.map(items)]
    assert reasons == ["worker_died", "foreseen", "timeout", "worker_died", BUG, "timeout", None]


def test_small_items_go_several_to_a_message():
    with WorkerPool("pool_tasks:double", 1, timeout=10) as pool:
        pool.map(range(10))  # measures their time
        sent = []
        honest = Worker.takes
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Worker, "takes", lambda self, lot: sent.append(len(lot.places)) or honest(self, lot))
            assert pool.map(range(1000)) == [Outcome(2 * item, None) for item in range(1000)]
    assert sum(sent) == 1000
    assert len(sent) < 60
    assert max(sent) > 10


@pytest.mark.parametrize(("item", "reason"), [("die", "worker_died"), ("sleep", "timeout")])
def test_in_a_message_of_several_only_the_culprit_is_lost(item, reason, tmp_path):
    """Those before it in its message are computed again, those after it for the first time; its own time counts."""
    path = tmp_path / "calls"
    with WorkerPool("pool_tasks:note", 1, timeout=0.5) as pool:
        pool.map([(path, "warm")] * 20)
        path.write_text("")
        words = [f"word {number}" for number in range(100)]
        words[17] = item
        begin = time.monotonic()
        outcomes = pool.map([(path, word) for word in words])
        assert time.monotonic() - begin < 20  # not the time-out of each item of its message
    lost = Outcome(None, reason)
    assert outcomes == [lost if word == item else Outcome(word, None) for word in words]
    calls = path.read_text().split("\n")
    assert calls.count(item) == 1
    repeated = {word for word in calls if word and calls.count(word) > 1}
    assert repeated <= set(words[:17])
    assert repeated  # it was not alone in its message


def test_many_slow_items_of_one_message_are_each_in_time():
    """The time-out is that of an item: here a message takes longer."""
    with WorkerPool("pool_tasks:nap", 1, timeout=1.0) as pool:
        pool.map([0.0] * 20)  # they look quick
        outcomes = pool.map([0.3] * 10)
    assert [outcome.reason for outcome in outcomes] == [None] * 10
    assert len({outcome.value for outcome in outcomes}) == 1  # by the same worker


@pytest.mark.parametrize("size", [1, 3, 10])
def test_of_a_lost_lot_only_the_culprit_is_lost(size):
    items = ["a", "die", "b", "c", "d", "e", "fail", "sleep"]
    with WorkerPool("pool_tasks:misbehave_all", 2, timeout=2) as pool:
        outcomes = pool.map_lots(items, size)
        assert pool.map_lots([], size) == []
    lost = {"die": "worker_died", "fail": "foreseen", "sleep": "timeout"}
    assert outcomes == [Outcome(None, lost[item]) if item in lost else Outcome(item, None) for item in items]


def test_lots_are_of_the_size_asked_for():
    with WorkerPool("pool_tasks:lot_sizes", 1, timeout=10) as pool:
        assert [outcome.value for outcome in pool.map_lots(range(7), 3)] == [3, 3, 3, 3, 3, 3, 1]


def test_worker_killed_between_batches_costs_nothing():
    with WorkerPool("pool_tasks:double", 2, timeout=10) as pool:
        pool.map(range(20))
        before = pool.pids()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: not any(is_alive(pid) for pid in before))
        assert pool.map(range(20)) == [Outcome(2 * item, None) for item in range(20)]
        assert not set(before) & set(pool.pids())


def test_worker_killed_by_hand_while_it_works():
    with WorkerPool("pool_tasks:nap", 1, timeout=20) as pool:
        victim = pool.map([0])[0].value
        pending = pool.submit([5, 0])
        time.sleep(0.3)
        os.kill(victim, signal.SIGKILL)
        lost, fine = pending.result()
    assert lost == Outcome(None, "worker_died")
    assert fine.reason is None
    assert fine.value != victim


def test_unpicklable_item_does_not_spoil_the_next_batch():
    with WorkerPool("pool_tasks:double", 2, timeout=10) as pool:
        with pytest.raises((AttributeError, TypeError, pickle.PicklingError), match=r"pickle|local object"):
            pool.map([1, 2, lambda: None])
        assert [outcome.value for outcome in pool.map([5, 6])] == [10, 12]


@pytest.mark.parametrize(
    ("task", "words"),
    [("no_such_module_at_all:f", "No module named 'no_such_module_at_all'"), ("pool_tasks:missing", "missing")],
)
def test_worker_that_cannot_start(task, words):
    with WorkerPool(task, 2, timeout=10) as pool, pytest.raises(UserError, match=words):
        pool.map([1, 2, 3])


def test_worker_that_is_not_ready_in_time():
    with WorkerPool("slow_task:never", 1, timeout=60, start_timeout=0.5) as pool:
        begin = time.monotonic()
        with pytest.raises(UserError, match=r"not ready after 0\.5 s"):
            pool.map([1])
        assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a:b", 0, 1.0), "at least one"),
        (("a:b", 1, 0.0), "positive"),
        (("ab", 1, 1.0), "module:function"),
        (("a:b", 1, 1.0, None, 0.0), "start time-out"),
    ],
)
def test_wrong_settings(arguments, words):
    with pytest.raises(UserError, match=words):
        WorkerPool(*arguments)


def test_close_while_a_batch_runs():
    pool = WorkerPool("pool_tasks:nap", 2, timeout=60)
    pool.map([0, 0])
    pending, queued = pool.submit([50, 50, 50]), pool.submit([0])
    time.sleep(0.2)
    pids = pool.pids()
    begin = time.monotonic()
    pool.close()
    assert time.monotonic() - begin < 5
    assert not any(is_alive(pid) for pid in pids)
    with pytest.raises(RuntimeError, match="closed"):
        pending.result()
    assert queued.cancelled()
    pool.close()  # once more does nothing


def test_what_workers_print_does_not_fill_the_disk():
    with WorkerPool("pool_tasks:misbehave", 1, timeout=10) as pool:
        pool.map(["chatter"] * 6)
        [worker] = pool._running
        assert os.fstat(worker.output.fileno()).st_size <= 3_000_000


def test_what_a_task_has_started_ends_with_its_worker(tmp_path):
    late, closed = tmp_path / "late", tmp_path / "closed"
    with WorkerPool("pool_tasks:run_program", 1, timeout=2.0) as pool:
        assert pool.map([late]) == [Outcome(None, "timeout")]
        pool.submit([closed])
        assert wait_until(lambda: closed.exists() and closed.read_text())
    pids = [int(path.read_text()) for path in (late, closed)]
    assert wait_until(lambda: not any(is_alive(pid) for pid in pids))


SCRIPT = """
{first}
from atomrl.workers import pool, worker_process
worker_process.GRACE = 0.2
with pool.WorkerPool("pool_tasks:nap", 2, timeout={timeout}) as workers:
    workers.map([0.1, 0.1])
    print(*workers.pids(), flush=True)
    {then}
"""


@contextmanager
def running_script(tmp_path, **parts):
    """A script without a `__main__` guard that has two workers, in its own process group, and the workers' ids."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(**parts))
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
    ) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        time.sleep(0.3)
        yield parent, pids


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_workers_quietly(tmp_path):
    threads = "import torch; torch.set_num_threads(2); torch.randn(64, 64) @ torch.randn(64, 64)"
    with running_script(tmp_path, first=threads, timeout=60, then="workers.map([30, 30])") as (parent, pids):
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, errors = parent.communicate(timeout=30)
    assert not any(is_alive(pid) for pid in pids)
    assert errors.count("Traceback") == 1  # the parent's own


def test_sigterm_to_a_whole_batch_job_leaves_the_scores_alone(tmp_path):
    then = "signal.signal(signal.SIGTERM, lambda *_: None); print([o.reason for o in workers.map([1.5, 1.5])])"
    with running_script(tmp_path, first="import signal", timeout=60, then=then) as (parent, pids):
        time.sleep(0.5)
        os.killpg(parent.pid, signal.SIGTERM)  # as a batch system does: to all of them
        assert parent.communicate(timeout=30)[0] == "[None, None]\n"
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.parametrize("then", ["import time; time.sleep(60)", "workers.map([30, 30])"], ids=["idle", "busy"])
def test_workers_end_when_the_parent_is_killed(tmp_path, then):
    with running_script(tmp_path, first="", timeout=1.0, then=then) as (parent, pids):
        parent.kill()
        parent.communicate(timeout=30)
        assert wait_until(lambda: not any(is_alive(pid) for pid in pids))
