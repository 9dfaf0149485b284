"""`atomrl data split`: crystals of CSV files, joined and split so that no formula is in two splits."""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path

from atomrl.data.crystal_csv import CIF, ID, csv_blocks, load_crystal_csv
from atomrl.data.crystal_set import CrystalSet
from atomrl.data.prototype_set import SPLITS
from atomrl.structures.crystals import compositions_of, readable_formula
from atomrl.util.command_parser import CommandParser
from atomrl.util.errors import UserError
from atomrl.util.files import whole


def split_command(arguments: Sequence[str]) -> None:
    """Split files as the words after `atomrl data split` say.

    Raises:
        UserError: as `split_files`.
    """
    parser = CommandParser(
        prog="atomrl data split",
        description="join CSV files of crystals and split them so that no formula is in two splits",
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE.csv", help=f"CSV file with the columns {ID} and {CIF}"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for train.csv, val.csv and test.csv")
    parser.add_argument(
        "--shares",
        type=float,
        nargs=3,
        default=[80.0, 10.0, 10.0],
        metavar="N",
        help="shares of the formulas for train, val and test; default 80 10 10",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed that deals out the formulas; default 0")
    options: argparse.Namespace = parser.parse_args(arguments)
    found = split_files(options.files, options.output, options.shares, options.seed)
    print(", ".join(f"{found[split]:,} {split}" for split in SPLITS) + f" -> {options.output}")


def split_files(files: Sequence[Path], output: Path, shares: Sequence[float], seed: int) -> dict[str, int]:
    """Join CSV files of crystals and write one file per split; rows stay as they are.

    Rows that hold no sound crystal are left out, as `load_crystal_csv` reports them.

    Args:
        files: with the same columns.
        output: folder, in which none of the three files may be yet.
        shares: of the formulas, for train, val and test.
        seed: of the dealing out.

    Returns:
        Crystals in each split.

    Raises:
        UserError: a share or the seed cannot be, a split would be empty, a file is there already, or one that is read
            is none or has other columns than the first.
    """
    if any(share <= 0 for share in shares) or seed < 0:
        raise UserError(
            f"--shares {' '.join(f'{s:g}' for s in shares)} --seed {seed}: give positive shares and a seed from 0"
        )
    targets = [output / f"{split}.csv" for split in SPLITS]
    if there := [str(path) for path in targets if path.exists()]:
        raise UserError(f"{', '.join(there)}: already there; give another --output, or remove it")
    sets = [load_crystal_csv(path) for path in files]
    columns = _columns(files)
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        opened = [stack.enter_context(stack.enter_context(whole(path)).open("w", newline="")) for path in targets]
        writers = [csv.DictWriter(file, columns) for file in opened]
        for writer in writers:
            writer.writeheader()
        for path, crystals in zip(files, sets, strict=True):
            for row, formula in zip(_sound_rows(path, crystals), _formulas(crystals), strict=True):
                place = split_of(formula, seed, shares)
                writers[place].writerow(row)
                counts[SPLITS[place]] += 1
        if empty := [split for split in SPLITS if not counts[split]]:
            raise UserError(f"no crystal for {' and '.join(empty)}: give more crystals, or other --shares")
    return dict(counts)


def split_of(formula: str, seed: int, shares: Sequence[float]) -> int:
    """Place among the shares of all crystals of a reduced formula; does not depend on what else is in the set."""
    digest = hashlib.sha256(f"{seed}:{formula}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return sum(place >= bound / sum(shares) for bound in list(accumulate(shares))[:-1])


def _columns(files: Sequence[Path]) -> list[str]:
    """Columns of all files.

    Raises:
        UserError: they differ.
    """
    headers = []
    for path in files:
        with path.open(newline="", encoding="utf-8-sig") as file:
            names = [name.strip() for name in next(csv.reader(file))]
        headers.append([name for name in names if name])  # the unnamed first column is the index that pandas writes
        if set(headers[-1]) != set(headers[0]):
            raise UserError(
                f"{path} has the columns {', '.join(headers[-1])}, {files[0]} has {', '.join(headers[0])}: give files "
                "of one set"
            )
    return headers[0]


def _sound_rows(path: Path, crystals: CrystalSet) -> Iterator[Mapping[str, str]]:
    """The rows of a file that hold the crystals of its set, in their order."""
    left_out = {failure.row for failure in crystals.failures}
    for block in csv_blocks(path):
        yield from (row for number, row in block.items() if number not in left_out)


def _formulas(crystals: CrystalSet) -> Iterator[str]:
    """Reduced formula of each crystal."""
    return map(readable_formula, compositions_of(map(crystals.crystal, range(len(crystals)))))
