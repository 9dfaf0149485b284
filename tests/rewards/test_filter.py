"""The filter: who pays what, who is left out, and that two processes decide as one."""

import math
import pickle
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from atomrl.chemistry.known_smiles import read_known
from atomrl.chemistry.rdkit import MoleculeChecker, RdkitRecord
from atomrl.chemistry.training_smiles import TrainingSmiles
from atomrl.core.collective import Alone
from atomrl.core.objectives.fed_grpo import FedGRPO, FedGRPOConfig
from atomrl.core.protocols import Collective
from atomrl.core.records import Prompts, RewardTable, Structures
from atomrl.core.stages import FailedScores, SampleContext
from atomrl.rewards.filter import Filter
from atomrl.rewards.filter_options import FilterOptions
from atomrl.util.errors import UserError

SMILES = ["A", "B", None, "A", "C", "A", None, "B"]
FORCE = [-1.0, -2.0, -3.0, -0.5, -4.0, -0.5, -9.0, math.nan]
ENERGY = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
KNOWN = TrainingSmiles.of(["B", "X"], 2, "test", "0")


class Names:
    """Stands in for RDKit: names by sample."""

    def __init__(self, smiles: Sequence[str | None]) -> None:
        self.smiles = smiles

    def check(self, structures: Structures) -> list[RdkitRecord]:
        rows = structures.positions[:, 0, 0].long().tolist()
        texts = [self.smiles[row] for row in rows]
        return [
            RdkitRecord.invalid("valence") if text is None else RdkitRecord(True, text, 1, 0, None) for text in texts
        ]

    def close(self) -> None:
        pass


def samples(rows: Sequence[int], collective: Collective | None = None) -> tuple[RewardTable, SampleContext]:
    """Those rows; the structure of each says its number."""
    ids = torch.tensor(rows)
    positions = ids[:, None, None].float().expand(-1, 1, 3)
    structures = Structures(torch.ones(len(rows), 1).long(), positions, torch.ones(len(rows), 1).bool())
    channels = {
        name: torch.tensor(values, dtype=torch.float64)[ids]
        for name, values in {"force": FORCE, "energy": ENERGY}.items()
    }
    prompts = Prompts(0, 0, torch.ones_like(ids), ids // 4, ids)
    active = torch.ones(len(rows), dtype=torch.bool)
    reasons = tuple("scf" if value.isnan() else None for value in channels["force"])
    return RewardTable(channels, reasons), SampleContext(prompts, structures, active, collective or Alone())


def filtered(rows: Sequence[int] = range(8), collective: Collective | None = None, **options: Any) -> RewardTable:
    table, context = samples(rows, collective)
    return Filter(FilterOptions(**options), Names(SMILES), KNOWN)(table, context)  # type: ignore[arg-type]


def same(found: torch.Tensor, expected: list[float]) -> bool:
    return torch.allclose(found, torch.tensor(expected, dtype=torch.float64), equal_nan=True)


def test_invalid_and_known_molecules_pay_in_every_channel() -> None:
    found = filtered(enable_penalty=True, penalty_scale=0.5)
    pays = [0, 1, 1, 0, 0, 0, 1, 1]  # B is known, None invalid
    assert same(found.channels["force"], [value - 0.5 * pay for value, pay in zip(FORCE, pays, strict=True)])
    assert same(found.channels["energy"], [value - 0.5 * pay for value, pay in zip(ENERGY, pays, strict=True)])
    assert found.diagnostics["novelty_penalty_ratio"].tolist() == pays


def test_invalid_molecules_lie_below_the_worst_valid_one() -> None:
    """Of each channel: -4 and 1; also where the invalid one had a better or a worse score, or none."""
    found = filtered(invalid_penalty_scale=2.0)
    assert same(found.channels["force"], [-1, -2, -6, -0.5, -4, -0.5, -6, math.nan])
    assert same(found.channels["energy"], [1, 2, -1, 4, 5, 6, -1, 8])
    nothing = filtered(rows=[2, 6], invalid_penalty_scale=2.0)  # none is valid: nothing to lie below
    assert same(nothing.channels["force"], [-3, -9])


def test_copies_share_a_penalty() -> None:
    found = filtered(duplicate_penalty_scale=0.6)
    each = {"A": 0.6 * 2 / 3, "B": 0.6 / 2, "C": 0.0, None: 0.0}
    assert same(found.channels["energy"], [e - each[s] for e, s in zip(ENERGY, SMILES, strict=True)])
    assert found.reasons == (*[None] * 7, "scf")


def test_one_of_a_smiles_teaches() -> None:
    """The best by force, the first of equals (3 before 5), never one without a score (7); invalid ones stay."""
    found = filtered(enable_filtering=True, duplicate_penalty_scale=0.6)
    kept = [1, 2, 3, 4, 6]
    assert found.diagnostics["filter_ratio"].tolist() == [float(row in kept) for row in range(8)]
    assert [row for row in range(8) if found.reasons[row] == "duplicate"] == [0, 5, 7]
    assert same(found.channels["force"], [math.nan, -2.6, -3, -0.5 - 1.2, -4, math.nan, -9, math.nan])
    _, context = samples(range(8))
    found = FailedScores()(found, context)
    assert found.channels["energy"].isnan().tolist() == [row not in kept for row in range(8)]  # left out, not failed
    objective = FedGRPO(FedGRPOConfig(channel_weights={"force": 1.0, "energy": 1.0}))
    advantages = objective.advantages(found, context.prompts.group_ids, context.active)
    assert (advantages.total != 0).tolist() == [row in kept for row in range(8)]


def test_an_unusable_sample_is_no_copy_and_no_worst() -> None:
    table, context = samples(range(8))
    active = torch.ones(8, dtype=torch.bool)
    active[[3, 4]] = False  # the best A, and the worst valid force
    options = FilterOptions(enable_filtering=True, invalid_penalty_scale=1.0)
    found = Filter(options, Names(SMILES), KNOWN)(table, replace(context, active=active))  # type: ignore[arg-type]
    assert float(found.channels["force"][5]) == -0.5
    assert float(found.channels["force"][2]) == -2 - 1


class Rank:
    """One of several threads that gather like processes."""

    def __init__(self, rank: int, place: list, barrier: threading.Barrier) -> None:
        self.rank, self.place, self.barrier = rank, place, barrier

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        self.place[self.rank] = tensor
        self.barrier.wait()
        found = torch.cat(self.place)
        self.barrier.wait()
        return found

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.gather(tensor[None]).sum(0)


def test_two_processes_decide_as_one() -> None:
    """Copies, the best of them and the worst valid score are looked for on all; their counts of kept ones differ."""
    options = {
        "enable_filtering": True,
        "enable_penalty": True,
        "invalid_penalty_scale": 2.0,
        "duplicate_penalty_scale": 1,
    }
    alone, place, barrier = filtered(**options), [None, None], threading.Barrier(2, timeout=20)
    halves: dict[int, RewardTable] = {}
    shares = {0: [0, 1, 2, 3], 1: [4, 5, 6, 7]}
    threads = [
        threading.Thread(
            target=lambda rank=rank: halves.update(
                {rank: filtered(shares[rank], Rank(rank, place, barrier), **options)}
            )
        )
        for rank in shares
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = RewardTable.concatenate([halves[0], halves[1]])
    assert together.reasons == alone.reasons
    for name, values in alone.channels.items():
        assert same(together.channels[name], values.tolist())
    kept = [halves[rank].diagnostics["filter_ratio"].sum().item() for rank in shares]
    assert kept[0] != kept[1]


def as_structures(smiles: str) -> Structures:
    """The molecule of a SMILES in RDKit's geometry."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    AllChem.MMFFOptimizeMolecule(mol)
    numbers = torch.tensor([[atom.GetAtomicNum() for atom in mol.GetAtoms()]])
    positions = torch.tensor(mol.GetConformer().GetPositions(), dtype=torch.float32)[None]
    return Structures(numbers, positions, torch.ones_like(numbers, dtype=torch.bool))


@pytest.mark.parametrize("ending", ["smi", "pickle"])
def test_a_file_of_smiles_is_the_known_set(tmp_path: Path, ending: str) -> None:
    """Written without hydrogens, in another order of atoms, with a second fragment: the same molecules."""
    written = ["OCC ethanol", "C1NC1", "C.O"]
    path = tmp_path / f"known.{ending}"
    if ending == "smi":
        path.write_text("\n".join([*written, ""]))
    else:
        path.write_bytes(pickle.dumps([None, *(text.split()[0] for text in written)]))
    known = read_known(path, 1)
    assert known.described.startswith("3 SMILES of 3 molecules from known.")
    with MoleculeChecker() as checker:
        names = [checker.check(as_structures(smiles))[0].smiles for smiles in ("CCO", "N1CC1", "C", "CC")]
    assert all(names)
    assert known.contains([str(name) for name in names]).tolist() == [True, True, True, False]


class Harmful:
    """Runs code when it is read."""

    def __reduce__(self) -> tuple:
        return (Path("harmed").touch, ())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.smi", None, "cannot be read as text"),
        ("binary.smi", b"\xff\xfe\x00", "cannot be read as text"),
        ("empty.smi", b"\n\n", "holds no SMILES"),
        ("wrong.smi", b"CCO\nnonsense\nC(C\n", "RDKit cannot read 2 of 3 SMILES (nonsense, C(C)"),
        ("harmful.pickle", pickle.dumps([Harmful()]), "is no pickle of plain SMILES"),
        ("short.pickle", pickle.dumps(["CCO"])[:5], "is no pickle of plain SMILES"),
        ("beyond_all.pickle", b"\x80\x04\x8e" + b"\xff" * 8, "is no pickle of plain SMILES"),  # bytes, and how many
        ("beyond_memory.pickle", b"\x80\x04\x8e" + (2**46).to_bytes(8, "little"), "is no pickle of plain SMILES"),
        ("numbers.pickle", pickle.dumps([1, 2]), "holds no list of SMILES"),
    ],
)
def test_a_file_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        read_known(tmp_path / name, 1)
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "harmed").exists()
