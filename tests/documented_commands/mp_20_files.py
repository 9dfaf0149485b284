"""The files that a user of MP-20 puts into data/mp_20: here the same eight crystals in every split."""

import csv
from pathlib import Path

import pytest
from pymatgen.core import Composition
from pymatgen.io.cif import CifWriter
from small_crystal_set import CRYSTALS

from atomrl.chemistry.hull import Hull, HullEntry, HullKey
from atomrl.force_fields.chgnet import CORRECTIONS, model_id


def write_csv(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """data/mp_20/{train,val,test}.csv, with invented band gaps; what is prepared from them is cached beside."""
    monkeypatch.setenv("ATOMRL_CACHE", str(root / "cache"))
    folder = root / "data" / "mp_20"
    folder.mkdir(parents=True)
    for split in ("train", "val", "test"):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["material_id", "band_gap", "cif"])
            rows.writerows([f"mp-{row}", 0.5 * row, str(CifWriter(crystal))] for row, crystal in enumerate(CRYSTALS))


def write_hull(root: Path) -> None:
    """data/mp_20/hull.json, of invented energies on CHGNet's scale."""
    elements = sorted({element.symbol for crystal in CRYSTALS for element in crystal.elements})
    entries = [HullEntry(Composition(symbol), -2.0, symbol) for symbol in elements]
    entries += [HullEntry(crystal.composition, -3.5, f"mp-{row}") for row, crystal in enumerate(CRYSTALS)]
    Hull(HullKey(model_id("0.3.0"), CORRECTIONS["0.3.0"], "mp_20"), entries).save(root / "data" / "mp_20" / "hull.json")
