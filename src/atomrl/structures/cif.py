"""CIF text to the crystal that it declares, or to the reason why there is none. Runs in worker processes: no torch.

gemmi reads the text. What was read is then compared with what the file says about itself, its formula (times Z) and its
symmetry: a crystal that differs is not the one that was meant, whichever of the two is wrong.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from atomrl.structures.cells import Crystal, canonical, to_arrays
from atomrl.structures.cif_symmetry import Operations, ambiguous, read_symmetry, texts_of
from atomrl.util.optional_imports import extra
from atomrl.workers.failure import Failure

with extra("crystals"):
    import gemmi
    from pymatgen.core import Lattice, Structure

CELL = tuple(
    f"_cell_{kind}" for kind in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
)
UNITS = "_cell_formula_units_Z"
FORMULAS = ("_chemical_formula_structural", "_chemical_formula_moiety")
"""Where a file without a `_chemical_formula_sum` may say what it consists of."""
COORDINATES = ("fract_x", "fract_y", "fract_z")
COLUMNS = (
    *COORDINATES,
    *("?label", "?type_symbol", "?occupancy", "?attached_hydrogens", "?calc_flag", "?disorder_group"),
    *("?site_symmetry_multiplicity", "?symmetry_multiplicity"),  # one thing by its new name and its old one
)

NUMBERS = {symbol: number for symbol, number in atomic_numbers.items() if number} | {"D": 1, "T": 1}
"""Atomic numbers by symbol; deuterium and tritium are hydrogen."""

SYMBOL = re.compile(r"([A-Za-z]{1,2})(\d*\.?\d*[+-]?|[+-]\d*\.?\d*)")
"""Of an `_atom_site_type_symbol`: an element, perhaps with its charge or a number."""

SHARED = re.compile(r"[A-Za-z]+\d*[/|,&+-]([A-Z][a-z]?)")
"""Of a label with the symbols of two elements, `Al/Si1`, as of a site that both hold."""

UNIT_ROUNDED, CELL_ROUNDED = 0.006, 0.05
"""Atoms by which a formula unit, and a cell, may differ from what is declared: formulas are rounded (`Al0.67 O`)."""

FULL = 1e-6
"""How near to 1 an occupancy must be."""


class ParsedCif(NamedTuple):
    """What a CIF declares.

    Attributes:
        crystal: all atoms of the cell.
        assumed_p1: whether the file says nothing about symmetry, so that its sites were taken for all atoms.
    """

    crystal: Crystal
    assumed_p1: bool


class Sites(NamedTuple):
    """S sites, each held by one atom.

    Attributes:
        numbers: atomic numbers, (S,).
        frac_coords: as written, (S, 3).
        declared: label and multiplicity of each, as they are written; None for a site whose multiplicity is not.
        doubtful: a symbol that need not be an element's, or one atom's, and the element; None if there is none.
    """

    numbers: NDArray[np.int64]
    frac_coords: NDArray[np.float64]
    declared: tuple[tuple[str, str] | None, ...]
    doubtful: tuple[str, str] | None


def parse_cif(text: str, niggli: bool = True) -> ParsedCif:
    """The crystal of a CIF's only structure, in its canonical form unless `niggli` is False.

    Raises:
        Failure: a kind, a colon and what is wrong: `cif` (the text), `cell`, `coordinate`, `element` (a symbol that is
            no element's), `hydrogens` (without places), `disordered` (a site that is not held by one atom),
            `symmetry` (unknown, open, or not that of the atoms), `formula` and `multiplicity` (not that of the atoms).
            Or `niggli` alone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noble gases have no electronegativity to sort by; spglib announces exceptions
        block = _block(text)
        cell = _cell(block)
        sites = _sites(block)
        symmetry = read_symmetry(block)
        formula, count = declared_formula(block), declared_units(block)
        if sites.doubtful is not None and formula is None:
            raise Failure("element: {!r} may be {} or not, and no formula says".format(*sites.doubtful))
        filled = {option: _structure(sites, cell, option) for option in symmetry.possible(cell)}
        remark = "; it names no symmetry" if symmetry.absent else ""
        option = _declared({option: structure for option, (structure, _) in filled.items()}, formula, count, remark)
        structure, multiplicities = filled[option]
        if formula is None or count in (None, 1):  # a formula and its Z say what the cell holds, and better
            _check_multiplicities(sites.declared, multiplicities, len(option.rotations), remark)
        if formula is None:
            _check_structural(block, structure, remark)
        symmetry.check(structure)
        return ParsedCif(to_arrays(canonical(structure) if niggli else structure), symmetry.absent)


def _block(text: str) -> gemmi.cif.Block:
    """The block that holds atoms."""
    if "\n" not in text.strip() and "\\n" in text:
        raise Failure("cif: its line breaks are written as \\n: write line breaks")
    try:
        blocks = [block for block in gemmi.cif.read_string(text) if len(block.find_values("_atom_site_fract_x"))]
    except (ValueError, RuntimeError) as error:  # of its grammar, and of tags that come twice
        words = re.sub(r"^string(:(\d+)(:\d+\(\d+\))?)?", r"line \2", str(error))
        raise Failure("cif: " + " ".join(words.split())[:120] + _beyond_ascii(text)) from error
    if len(blocks) != 1:
        raise Failure(f"cif: {len(blocks)} of its blocks list fractional coordinates of atoms, not one")
    return blocks[0]


def _beyond_ascii(text: str) -> str:
    """What there is to say of a text that is a CIF but for what ASCII lacks; gemmi blames the loop that it breaks."""
    try:
        gemmi.cif.read_string(re.sub(r"[^\x00-\x7f]", "0", text))
    except (ValueError, RuntimeError):
        return ""
    return "; outside of quotation marks stands what is not ASCII, perhaps a long minus sign"


def _cell(block: gemmi.cif.Block) -> gemmi.UnitCell:
    """The unit cell."""
    texts = [block.find_value(tag) for tag in CELL]
    for tag, text in zip(CELL, texts, strict=True):
        if text is None or not 0 < _number(text) < (180 if "angle" in tag else math.inf):
            raise Failure(f"cell: {tag} is {'missing' if text is None else text}")
    cell = gemmi.UnitCell(*map(_number, texts))
    if not cell.volume > 0:
        raise Failure(f"cell: its angles {', '.join(texts[3:])} enclose no volume")
    return cell


def _number(value: str) -> float:
    """A value as it stands in a CIF, quoted or not, without its uncertainty; NaN if it is no number."""
    return float(gemmi.cif.as_number(gemmi.cif.as_string(value)))


def _sites(block: gemmi.cif.Block) -> Sites:
    """The atoms that are listed."""
    table = block.find("_atom_site_", list(COLUMNS))
    if not len(table):
        raise Failure("coordinate: _atom_site_fract_x, _y and _z do not stand in one loop")
    numbers, places, declared, doubtful, groups = [], [], list[tuple[str, str] | None](), None, set[str]()
    for row in table:
        values = {
            name.lstrip("?"): row.str(column)
            for column, name in enumerate(COLUMNS)
            if row.has(column) and not gemmi.cif.is_null(row[column])
        }
        label = values.get("label") or values.get("type_symbol", "a site")
        if values.get("calc_flag") == "dum" or not _occupied(label, values.get("occupancy", "1")):
            continue
        if gemmi.cif.as_number(values.get("attached_hydrogens", "0")) != 0:
            raise Failure(f"hydrogens: {label} has {values['attached_hydrogens']} without places")
        symbol, whole = _element(values)
        if not whole and doubtful is None:
            doubtful = (values.get("type_symbol", label), symbol)
        place = [gemmi.cif.as_number(values.get(name, "?")) for name in COORDINATES]
        for name, value, column in zip(COORDINATES, place, range(3), strict=True):
            if not math.isfinite(value):
                raise Failure(f"coordinate: _atom_site_{name} of {label} is {row[column]}")
        numbers.append(NUMBERS[symbol])
        places.append(place)
        written = values.get("site_symmetry_multiplicity", values.get("symmetry_multiplicity"))
        declared.append(None if written is None else (label, written))
        if values.get("disorder_group", "0") != "0":  # SHELX's part 0 is no alternative
            groups.add(values["disorder_group"])
    if len(groups) > 1:
        raise Failure(f"disordered: its sites belong to the disorder groups {', '.join(sorted(groups))}")
    if not numbers:
        raise Failure("cif: it lists no atoms")
    return Sites(np.array(numbers, dtype=np.int64), np.array(places), tuple(declared), doubtful)


def _occupied(label: str, text: str) -> bool:
    """Whether there is an atom; a part of one is a failure."""
    occupancy = gemmi.cif.as_number(text)
    if abs(occupancy) < FULL:
        return False
    if not abs(occupancy - 1) < FULL:
        raise Failure(f"disordered: the occupancy of {label} is {text}")
    return True


def _element(values: Mapping[str, str]) -> tuple[str, bool]:
    """The element of a site, and whether its symbol is written as it should be.

    A type symbol is an element's as a whole; a number in it that is no charge may count atoms (`N3`), unless it is the
    label's. A label only begins with one: `OA1` is oxygen, `CA1` calcium or carbon, `T1` a tetrahedron's centre, and
    `Al/Si1` one of two.
    """
    typed, label = values.get("type_symbol"), values.get("label", "")
    match = SYMBOL.fullmatch(typed) if typed is not None else re.match(r"([A-Za-z]+)", label)
    letters = match[1] if match else ""
    if letters in NUMBERS:
        number = match[2] if match and typed and typed != label else ""
        several = re.fullmatch(r"\d+", number) is not None and int(number) > 1
        other = None if typed is not None else SHARED.match(label)
        shared = other is not None and other[1] in NUMBERS
        return letters, not (several or shared or (typed is None and letters == "T"))
    for found in (letters[:2].capitalize(), *([letters[:1].upper()] if typed is None else [])):
        if found in NUMBERS:
            return found, False
    raise Failure(
        f"element: {label or typed!r} has no element's symbol" + (f", but {typed!r}" if typed and label else "")
    )


def declared_formula(block: gemmi.cif.Block) -> dict[int, float] | None:
    """Atoms by atomic number, as `_chemical_formula_sum` says; None if it does not.

    Raises:
        Failure: `formula: ` and a text that is none.
    """
    text = next(iter(texts_of(block, "_chemical_formula_sum")), None)
    if text is None:
        return None
    text = " ".join(text.split())
    if not re.fullmatch(r"([A-Z][a-z]?(\d+\.?\d*|\.\d+)?\s*)+", text):
        raise Failure(f"formula: {text!r} is none")
    amounts: dict[int, float] = {}
    for symbol, amount in re.findall(r"([A-Z][a-z]?)([\d.]*)", text):
        if symbol not in NUMBERS:
            raise Failure(f"formula: {text!r} has the element {symbol!r}")
        amounts[NUMBERS[symbol]] = amounts.get(NUMBERS[symbol], 0) + float(amount or 1)
    return {number: amount for number, amount in amounts.items() if amount}


def structural_formula(text: str) -> dict[int, int] | None:
    """Atoms by atomic number in a formula with groups such as `Ca (N O3)2`; None if what it says is not beyond doubt.

    Anything else than symbols, parentheses and whole numbers is in doubt: a name, a charge, `2H2O`, `Fe0.95`, a second
    moiety behind a comma; and so is `SIO2`, all in capitals.
    """
    if text == text.upper() and re.search("[A-Z]{2}", text):
        return None
    groups, place = [Counter[int]()], 0
    for match in re.finditer(r"\s*([A-Z][a-z]?|\)|\((?!\d))(\d*)", text):
        part, number, factor = match[1], NUMBERS.get(match[1]), int(match[2] or 1)
        if match.start() != place or not factor or (number is None and part.isalpha()):
            return None
        place = match.end()
        if number is not None:
            groups[-1][number] += factor
        elif part == "(":
            groups.append(Counter())
        elif len(groups) > 1:
            inner = groups.pop()
            groups[-1].update({element: amount * factor for element, amount in inner.items()})
        else:
            return None
    return dict(groups[0]) if groups[0] and len(groups) == 1 and not text[place:].strip() else None


def _check_structural(block: gemmi.cif.Block, structure: Structure, remark: str) -> None:
    """Compare the kinds of atoms with what a file that has no `_chemical_formula_sum` says by another item.

    Raises:
        Failure: `formula: `, and both formulas.
    """
    read = Counter(structure.atomic_numbers)
    for tag in FORMULAS:
        formula = structural_formula(next(iter(texts_of(block, tag)), ""))
        if formula is not None and not multiple(read, formula, None):
            raise Failure(f"formula: {tag} declares {readable(formula)}, {readable(read)} was read{remark}")


def declared_units(block: gemmi.cif.Block) -> int | None:
    """Z, the formula units in the cell; None if it is not said, or 0, as pymatgen writes for half a molecule.

    Raises:
        Failure: `formula: ` and a text that is no such number.
    """
    text = next(iter(texts_of(block, UNITS)), None)
    if text is None:
        return None
    units = float(gemmi.cif.as_number(text))
    if not (units >= 0 and units.is_integer()):
        raise Failure(f"formula: {UNITS} is {text!r}, and no whole number")
    return round(units) or None


def _structure(sites: Sites, cell: gemmi.UnitCell, operations: Operations) -> tuple[Structure, NDArray[np.int64]]:
    """All atoms of the cell, sorted by electronegativity, and how many each site makes, (S,)."""
    lattice = Lattice.from_parameters(*cell.parameters)
    rows, frac_coords, multiplicities = operations.apart(sites.numbers, sites.frac_coords, lattice.matrix)
    structure = Structure(lattice, sites.numbers[rows].tolist(), frac_coords).get_sorted_structure()
    return structure, multiplicities


def _check_multiplicities(
    declared: Sequence[tuple[str, str] | None], found: NDArray[np.int64], operations: int, remark: str
) -> None:
    """Compare how many atoms sites make with what a file says of them.

    What is no whole number from 1 says nothing (`0`, `2e`), nor does 1 throughout, which many programs write whatever
    the site. SHELXL writes the number of operations that leave a site where it is under the same tag (its later
    versions have a tag of its own for that). A file whose sites all have this number is right, too.

    Raises:
        Failure: `multiplicity: `, and both numbers of the first site that differs.
    """
    written = [0.0 if one is None else gemmi.cif.as_number(one[1]) for one in declared]
    said = [row for row, number in enumerate(written) if number >= 1 and number.is_integer()]
    if all(written[row] == 1 for row in said) or all(written[row] * found[row] == operations for row in said):
        return
    for row in said:
        if (one := declared[row]) is not None and written[row] != found[row]:
            raise Failure(f"multiplicity: {one[1]} of {one[0]} is declared, {found[row]} was read{remark}")


def _declared(
    options: Mapping[Operations, Structure], formula: Mapping[int, float] | None, units: int | None, remark: str
) -> Operations:
    """The operations whose structure has the declared formula: of several, those whose cell holds it exactly once.

    Where no formula is declared, the cell must hold Z units of some formula.
    """
    multiples = {}
    for option, structure in options.items():
        read = Counter(structure.atomic_numbers)
        divided = math.gcd(*read.values()) % (units or 1) == 0
        multiples[option] = int(divided) if formula is None else multiple(read, formula, units)
    fitting = [option for option, count in multiples.items() if count]
    if not fitting:
        read = Counter(next(iter(options.values())).atomic_numbers)
        times = "" if units is None else f" (Z {units})" if formula else f"Z {units}"
        raise Failure(f"formula: {readable(formula or {})}{times} is declared, {readable(read)} was read{remark}")
    once = [option for option in fitting if multiples[option] == 1]
    if len(once or fitting) > 1:
        raise ambiguous(once or fitting)
    return (once or fitting)[0]


def multiple(read: Mapping[int, int], formula: Mapping[int, float], units: int | None) -> int:
    """How many times a cell's atoms are a formula, 0 if they are not.

    `_chemical_formula_sum` is of one of the cell's Z formula units. pymatgen and others write the cell's there, beside
    the Z that belongs to the reduced formula; this counts as well.

    Args:
        read: atoms in the cell by atomic number.
        formula: the same in the formula.
        units: Z; None if unknown.
    """
    times = round(sum(read.values()) / sum(formula.values()))
    if times < 1:
        return 0
    for z in {*read, *formula}:
        off = abs(read.get(z, 0) - times * formula.get(z, 0))
        if off > CELL_ROUNDED or off > UNIT_ROUNDED * times:
            return 0
    whole_cell = times == 1 and units and not math.gcd(*map(round, formula.values())) % units
    return times if units is None or times == units or whole_cell else 0


def readable(amounts: Mapping[int, float]) -> str:
    """A formula for people, in alphabetical order."""
    return " ".join(sorted(f"{chemical_symbols[number]}{amount:g}" for number, amount in amounts.items()))
