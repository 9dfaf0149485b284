"""What a force field and a matcher said outlives an evaluation that is stopped."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from small_crystal_set import CRYSTALS

from atomrl.core.records import Structures
from atomrl.evaluation.kept_results import KeptProvider, evaluate_in_lots, lot_size
from atomrl.evaluation.kept_samples import KeptSamples
from atomrl.force_fields.base import Evaluation
from atomrl.measures.measure import Metric, SoundSamples
from atomrl.structures.crystals import from_pymatgen
from atomrl.util.errors import UserError
from atomrl.workers.executor import EXCEPTION, TIMEOUT

STRUCTURES = from_pymatgen(CRYSTALS)


class Counted:
    """A force field that notes how many structures it sees, and is interrupted at a lot of a number."""

    elements = frozenset(range(1, 119))

    def __init__(self, interrupted: int | None = None, lost: int | None = None, why: str = TIMEOUT) -> None:
        self.interrupted, self.lost, self.why = interrupted, lost, why
        self.lots: list[int] = []

    def evaluate(self, structures: Structures) -> list[Evaluation]:
        if len(self.lots) == self.interrupted:
            raise KeyboardInterrupt
        reason = self.why if len(self.lots) == self.lost else None
        self.lots.append(len(structures))
        return [
            Evaluation.failed(size, reason)
            if reason or size > 4
            else Evaluation(float(z), np.full((size, 3), float(z)), None, ("odd",), {"gap": 0.5})
            for z, size in zip(structures.numbers[:, 0].tolist(), structures.sizes.tolist(), strict=True)
        ]

    def close(self) -> None:
        pass


def ask(force_field: Counted, kept: KeptSamples | None, said: str = "it") -> list[Evaluation]:
    return evaluate_in_lots(force_field, STRUCTURES, kept, said, 3, "energies")


def same(first: list[Evaluation], second: list[Evaluation]) -> bool:
    return all(
        np.array_equal([one.energy], [two.energy], equal_nan=True)
        and np.array_equal(one.forces, two.forces, equal_nan=True)
        and (one.reason, one.flags, one.properties) == (two.reason, two.flags, two.properties)
        for one, two in zip(first, second, strict=True)
    )


def test_only_what_is_missing_is_asked_again(tmp_path: Path) -> None:
    kept, whole = KeptSamples(tmp_path), ask(Counted(), None)
    with pytest.raises(KeyboardInterrupt):
        ask(first := Counted(interrupted=2), kept)
    assert first.lots == [3, 3]
    assert same(ask(second := Counted(), kept), whole)
    assert second.lots == [2]
    assert same(ask(third := Counted(), kept), whole)
    assert third.lots == []
    ask(other := Counted(), kept, "another force field")
    assert other.lots == [3, 3, 2]


@pytest.mark.parametrize("reason", [TIMEOUT, f"{EXCEPTION}FileNotFoundError: weights.pt"])
def test_a_lot_of_a_failure_that_may_pass_is_asked_again(reason: str, tmp_path: Path) -> None:
    """A worker was lost, or the force field raised what its user has mended since."""
    kept = KeptSamples(tmp_path)
    assert [one.reason for one in ask(Counted(lost=1, why=reason), kept)][3:6] == [reason] * 3
    assert same(ask(again := Counted(), kept), ask(Counted(), None))
    assert again.lots == [3]


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    kept = KeptSamples(tmp_path)
    ask(Counted(), kept)
    (folder,) = kept.folder.iterdir()
    safetensors.torch.save_file({"energies": torch.zeros(3)}, folder / "00001.safetensors")
    with pytest.raises(UserError, match=r"00001\.safetensors lacks forces: delete it, it is made again"):
        ask(Counted(), kept)


class Matching:
    """A provider that says how often it was asked."""

    names = ("unique", "novel")

    def __init__(self, reason: str | None = None) -> None:
        self.reason, self.asked = reason, 0

    def measure(self, batch: SoundSamples) -> dict[str, Metric]:
        self.asked += 1
        values, reasons = torch.arange(len(batch)).double() % 2, (self.reason, *[None] * (len(batch) - 1))
        return {name: Metric(values, reasons) for name in self.names}

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("reason", "asked"), [(None, 1), ("reduction", 1), (TIMEOUT, 2)])
def test_the_matcher_is_asked_once(reason: str | None, asked: int, tmp_path: Path) -> None:
    provider, batch = Matching(reason), SoundSamples(STRUCTURES, CRYSTALS)
    found = [KeptProvider(provider, KeptSamples(tmp_path), "reference").measure(batch) for _ in range(2)]
    assert provider.asked == asked
    for name in provider.names:
        assert torch.equal(found[0][name].values, found[1][name].values)
        assert found[0][name].reasons == found[1][name].reasons == (reason, *[None] * 7)
    KeptProvider(provider, KeptSamples(tmp_path), "another reference").measure(batch)
    assert provider.asked == asked + 1


def test_lots_grow_with_the_workers() -> None:
    assert lot_size(workers=2, batch=16) == 256
    assert lot_size(workers=64, batch=16) == 4096
