"""What a user of Perov-5 downloads, val.csv and test.csv: here cubic perovskites with invented heats."""

import csv
from itertools import product
from pathlib import Path

from crystal_samples import PEROVSKITE
from pymatgen.io.cif import CifWriter


def write_csv(folder: Path) -> None:
    """20 crystals in each of the two files."""
    folder.mkdir(parents=True)
    ions = list(product(("Ca", "Sr", "Ba", "K", "Na"), ("Ti", "Zr", "Nb", "Sn"), ("O", "F")))
    for place, name in enumerate(("val", "test")):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["", "material_id", "cif", "formula", "heat_all", "dir_gap"])
            for number, (large, small, anion) in enumerate(ions[20 * place : 20 * (place + 1)]):
                crystal = PEROVSKITE.copy()
                crystal.replace_species({"Sr": large, "Ti": small, "O": anion})
                gap = 0.0 if number % 3 else 1.5 + 0.1 * number
                formula = crystal.composition.reduced_formula
                rows.writerow(
                    [number, f"{place}{number:03d}", str(CifWriter(crystal)), formula, 0.1 * number - 0.5, gap]
                )
