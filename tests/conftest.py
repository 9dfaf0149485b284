import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest
import torch
from kept_workers import KeptWorkers
from safetensors.numpy import load_file

from atomrl.chemistry.rdkit import RdkitRecord, bonded_molecules
from atomrl.chemistry.rdkit_task import name
from atomrl.core.records import Structures
from atomrl.data.batches import pad
from atomrl.data.qm9 import MoleculeSet
from atomrl.workers import local
from atomrl.workers.failure import Failure

DATA = Path(__file__).parent / "data"

SLOW = (
    "benchmarks/",
    "documented_commands/test_band_gap.py",
    "documented_commands/test_commands.py",
    "documented_commands/test_crystal_documents.py",
    "oracles/test_reward_slope.py",
    "rewards/test_hacked_runs.py",
    "studies/test_study_queue.py",
    "studies/test_whole_study.py",
    "test_wheel.py",
    "training/test_changed_settings.py",
    "training/test_kills_at_size.py",
    "training/test_processes.py",
    "training/test_resume.py",
    "training/test_run_endings.py",
    "training/test_several_processes.py",
)
"""What `make test` leaves to `make test-all`: whole studies, every command of the documents, kills and resumes."""

INHERITED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "ELIGN_TQDM")
"""Variables of the shell that the tests must not depend on."""

for variable in INHERITED:
    os.environ.pop(variable, None)
os.environ["OMP_NUM_THREADS"] = "1"
os.umask(0o022)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the slow files, and begin with the files that hold slow tests.

    A file stays on one core: when a long one comes last, the other cores have nothing left to do.
    """
    for item in items:
        if str(item.path.relative_to(Path(__file__).parent)).startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    long = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in long)


# Tensors here are small, and threads that wait for each other on a busy machine are slower than one.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _workers() -> Iterator[None]:
    """A pool has one worker where a test does not say how many, and CHGNet's outlive the test that started them.

    As many files run at once as there are cores, and to import CHGNet takes longer than the few samples of a test.
    """
    with pytest.MonkeyPatch.context() as patched, closing(KeptWorkers()) as kept:
        patched.setattr(local, "cores", lambda: 1)
        patched.setattr(local, "WorkerPool", kept.pool)
        yield


@pytest.fixture(scope="session")
def qm9_set() -> MoleculeSet:
    """300 molecules of QM9's test split."""
    arrays = load_file(DATA / "qm9_test_300.safetensors")
    return MoleculeSet(arrays["numbers"], arrays["positions"], arrays["offsets"], arrays["ids"])


@pytest.fixture(scope="session")
def qm9_test(qm9_set) -> Structures:
    """The same, padded."""
    batch = pad(qm9_set)
    return Structures(batch.numbers, batch.positions, batch.mask.bool())


def record_here(molecule) -> RdkitRecord:
    """What a worker says about a bonded molecule, without one."""
    try:
        return RdkitRecord(True, *name(molecule), None)
    except Failure as failure:
        return RdkitRecord.invalid(failure.reason)


@pytest.fixture(scope="session")
def records_of():
    """Function: structures -> RDKit records, in this process."""
    return lambda structures: [record_here(molecule) for molecule in bonded_molecules(structures)]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, here and in what the test starts, even if pytest was started with it ignored.

    Afterwards it must have been left so.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    found = signal.signal(signal.SIGINT, before)
    assert found is signal.default_int_handler


@pytest.fixture(autouse=True)
def _modules_of_a_test(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A module that a test wrote and imported is gone after it: another test may write one of the same name."""
    before = set(sys.modules)
    yield
    written = tmp_path_factory.getbasetemp()
    for found in set(sys.modules) - before:
        module = sys.modules[found]
        file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
        if file is not None and Path(file).is_relative_to(written):
            del sys.modules[found]
