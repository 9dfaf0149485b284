"""Short CIFs, and what came of them."""

import csv
from collections import Counter
from pathlib import Path

import pytest
from ase.data import chemical_symbols

from atomrl.structures.cif import parse_cif
from atomrl.workers.failure import Failure

CASES = Path(__file__).parents[0] / "data" / "cif_cases"

SPGLIB = pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING")

CELL = {"length_a": 5.64, "length_b": 5.64, "length_c": 5.64, "angle_alpha": 90, "angle_beta": 90, "angle_gamma": 90}
NA_CL = (("Na1", "Na", 0, 0, 0), ("Cl1", "Cl", 0.5, 0.5, 0.5))
FACE_CENTRED = ("x,y,z", "x+1/2,y+1/2,z", "x+1/2,y,z+1/2", "x,y+1/2,z+1/2")


def cif(sites=NA_CL, columns="label type_symbol fract_x fract_y fract_z", operations=(), cell=(), **items):
    """A short CIF; `items` by the tag without its underscore, with - as __."""
    lines = ["data_x", *(f"_cell_{name} {value}" for name, value in {**CELL, **dict(cell)}.items())]
    lines += [f"_{name.replace('__', '-')} '{value}'" for name, value in items.items()]
    lines += ["loop_", " _symmetry_equiv_pos_as_xyz", *(f" '{text}'" for text in operations)] if operations else []
    lines += ["loop_", *(f" _atom_site_{name}" for name in columns.split())]
    return "\n".join([*lines, *(" ".join(map(str, site)) for site in sites)]) + "\n"


def formula(crystal):
    return dict(Counter(chemical_symbols[number] for number in crystal.numbers))


def reason(text):
    with pytest.raises(Failure) as caught:
        parse_cif(text)
    return caught.value.reason


def rows(name):
    with (CASES / name).open(newline="") as file:
        return [pytest.param(row, id=row["material_id"]) for row in csv.DictReader(file)]
