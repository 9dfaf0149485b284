"""Several real processes do what one does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_updates import assert_same


def run_ranks(script: str, ranks: int, output: Path, *words: str) -> Any:
    """What rank 0 of so many real processes saved."""
    port = 29500 + (os.getpid() + 7 * len(script)) % 2000
    processes = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script)), str(output), *words],
            env={
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": str(ranks),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port + ranks),
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
            },
        )
        for rank in range(ranks)
    ]
    assert [process.wait(timeout=240) for process in processes] == [0] * ranks
    return torch.load(output, weights_only=True)


CASES = (
    ("fed_grpo", "molecule", "all", "all"),
    ("fed_grpo", "crystal", "unequal", "all"),
    ("fed_grpo", "molecule", "one rank", "all"),
    ("grpo", "molecule", "unequal", "all"),
    ("grpo", "crystal", "one rank", "all"),
    ("nft", "molecule", "one rank", "all"),
    ("nft", "crystal", "all", "all"),
    ("awm", "molecule", "unequal", "all"),
    ("rejection", "molecule", "unequal", "all"),
    ("fed_grpo", "molecule", "unequal", "5"),
    ("fed_grpo", "crystal", "all", "8"),
    ("grpo", "crystal", "unequal", "5"),
    ("nft", "molecule", "all", "3"),
    ("aligned", "molecule", "unequal", "5"),
    ("aligned", "molecule", "one rank", "6"),
)
"""Objective, policy, which samples teach, and how many an optimizer step takes."""

Runs = tuple[dict[str, dict[str, torch.Tensor]], ...]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """What one process saved of all cases, and what two did: starting them takes longer than a case."""
    folder, words = tmp_path_factory.mktemp("ranks"), [",".join(case) for case in CASES]
    one, two = (run_ranks("two_ranks.py", ranks, folder / f"{ranks}.pt", *words) for ranks in (1, 2))
    return one, two


@pytest.mark.parametrize("case", CASES, ids=",".join)
def test_three_iterations_on_two_processes_equal_one(case: tuple[str, ...], runs: Runs) -> None:
    """Gradients and parameters, also where a filter leaves one rank fewer samples that teach, or none.

    Of the twelve samples of an iteration an optimizer step takes all, or so many at a time: of these the two ranks have
    unequal numbers, or one has none. `aligned`: each group shares a prefix, rewards are shaped and steps aligned.
    """
    one, two = (run[",".join(case)] for run in runs)
    assert one.keys() == two.keys()
    objective, _, _, spread = case
    steps = 1 if spread == "all" else -(-12 // int(spread))
    parts = sorted({name.split(".")[0] for name in one})
    pairs = [[{n: v for n, v in saved.items() if n.startswith(f"{p}.")} for saved in (one, two)] for p in parts]
    if objective == "aligned":  # what a group shares may run away, and then a step has nothing to learn from
        pairs = [pair for pair in pairs if any(values.any() for saved in pair for values in saved.values())]
        assert 1 + steps < len(pairs) <= 3 * steps + 1
    else:
        assert len(pairs) == 3 * steps + 1
    for pair in pairs:
        assert_same(*pair, 1e-8)


def test_ranks_gather_unequal_numbers_of_rows(tmp_path: Path) -> None:
    found = run_ranks("gather.py", 3, tmp_path / "rows.pt")
    order = [0, 1, 1, 2, 2, 2]
    assert found["rows"][:, 0].tolist() == order
    assert found["channels"]["rank"].tolist() == found["potentials"]["rank"].tolist() == order
    assert found["reasons"] == (None, "Grund ü", None, "Grund üü", "Grund üü", None)
    assert found["fields"]["forces"].shape == (6, 3, 3)  # padded to the widest of all ranks
    assert found["filled"]["rank"].tolist() == [False] + 5 * [True]
    assert found["seconds"] == {"scoring": 3.0}


def test_ranks_agree_on_whether_there_is_anything_to_learn(tmp_path: Path) -> None:
    found = run_ranks("exploded_ranks.py", 2, tmp_path / "found.pt")
    assert found["masked_samples"] == [6, 6]  # half of them: all those of rank 0
    assert found["names"][0] == found["names"][1]  # rank 0 counted nothing itself where each group had its step
    assert found["stopped"] == [True, True]
