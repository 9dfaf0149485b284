import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file

from atomrl.chemistry.rdkit import RdkitRecord, bonded_molecules
from atomrl.chemistry.rdkit_task import name
from atomrl.core.records import Structures
from atomrl.data.batches import pad
from atomrl.data.qm9 import MoleculeSet
from atomrl.workers.failure import Failure

DATA = Path(__file__).parent / "data"

# Tensors here are small, and threads that wait for each other on a busy machine are slower than one.
torch.set_num_threads(1)


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
