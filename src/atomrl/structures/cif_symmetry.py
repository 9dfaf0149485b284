"""The symmetry of a CIF: the operations that it lists, or those of the space group that it names. No torch in here.

Names, settings and origins are looked up in gemmi's tables; spglib says which space group operations make, and which
one a crystal has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from atomrl.util.optional_imports import extra
from atomrl.workers.failure import Failure

with extra("crystals"):
    import gemmi
    import spglib
    from pymatgen.core import Structure, SymmOp

FloatArray = NDArray[np.float64]

OPERATIONS = (
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_symmetry_equiv.pos_as_xyz",
)
HALL = ("_space_group_name_Hall", "_space_group.name_Hall", "_symmetry_space_group_name_Hall")
HERMANN_MAUGUIN = (
    "_space_group_name_H-M_alt",
    "_space_group.name_H-M_alt",
    "_symmetry_space_group_name_H-M",
    "_symmetry.space_group_name_H-M",
    "_space_group_name_H-M_full",
    "_space_group_name_H-M",
)
FULL = "_space_group_name_H-M_full"
"""Its symbols, such as `F 4/m -3 2/m`, are not tabulated."""
NUMBER = (
    "_space_group_IT_number",
    "_space_group.IT_number",
    "_symmetry_Int_Tables_number",
    "_symmetry.Int_Tables_number",
)
MAGNETIC = ("_space_group_symop{}magn_operation{}xyz", "_space_group{}magn{}name_BNS", "_space_group{}magn{}number_BNS")
"""Between the parts stands a point or a line, before `magn` in files that are older than the dictionary."""
UNSUPPORTED = {tag.format(*marks): "magnetic" for tag in MAGNETIC for marks in ("_.", "__", "._")} | {
    "_cell_modulation_dimension": "modulated"
}
SUFFIXES = {"S": ":1", "Z": ":2", "O1": ":1", "O2": ":2", "H": ":H", "R": ":R"}
"""What follows Hermann-Mauguin symbols to say origin or axes, and how gemmi writes it; S and Z are the ICSD's."""
SUFFIX = re.compile(r"(.+?)[\s:]*(O1|O2|S|Z|H|R)", re.IGNORECASE)
"""With or without a blank or a colon: no symbol of a group ends in one of these letters."""

NULL = {"", ".", "?"}
"""Values that say nothing, quoted or not."""

SAME_PLACE = 0.1
"""Å. Images of a site that are nearer are one atom at a special position, whose coordinates were rounded."""
SAME_LENGTH = 0.01
"""Part by which lengths that an operation makes equal may differ, as they are written."""
SYMMETRY_TOLERANCE = 0.05
"""Å, for finding the symmetry of a crystal."""
FEW = 2000
"""Atoms below which spglib finds the symmetry in seconds; its time grows with their square."""


@dataclass(frozen=True, eq=False)
class Operations:
    """O operations of a group, x' = rotation x + translation, in fractional coordinates.

    Attributes:
        name: of the space group.
        number: of its type, 1 to 230; None if the operations are no group.
        rotations: (O, 3, 3).
        translations: (O, 3).
    """

    name: str
    number: int | None
    rotations: FloatArray
    translations: FloatArray

    def orbits(self, frac_coords: FloatArray, lattice: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
        """All atoms of a cell, each once.

        Args:
            frac_coords: of S sites, (S, 3).
            lattice: vectors in rows, Å, (3, 3).

        Returns:
            The site of each of N atoms, (N,), ascending, and the atoms' fractional coordinates in [0, 1), (N, 3).
        """
        images = self._images(frac_coords).swapaxes(0, 1)  # (S, O, 3)
        coincide = _distances(images[:, :, None] - images[:, None], lattice) < SAME_PLACE
        first = coincide.argmax(-1) == np.arange(len(self.rotations))
        return np.nonzero(first)[0], images[first]

    def apart(
        self, numbers: NDArray[np.int64], frac_coords: FloatArray, lattice: FloatArray
    ) -> tuple[NDArray[np.int64], FloatArray, NDArray[np.int64]]:
        """All atoms of a cell, each once, also where sites are images of each other: then the first of them makes all.

        Two sites at one place are not images but two atoms, as they are listed.

        Args:
            numbers: atomic numbers of S sites, (S,).
            frac_coords: of the sites, (S, 3).
            lattice: vectors in rows, Å, (3, 3).

        Returns:
            As of `orbits`; and how many atoms each site makes by itself, (S,).
        """
        rows, places = self.orbits(frac_coords, lattice)
        multiplicities = np.bincount(rows, minlength=len(numbers))
        if len(self.rotations) == 1:
            return rows, places, multiplicities
        sites = _wrapped(frac_coords)
        atom, site = _near(places, sites, lattice)
        images = (rows[atom] < site) & (numbers[rows[atom]] == numbers[site])
        images &= _distances(sites[rows[atom]] - sites[site], lattice) >= SAME_PLACE
        kept = np.ones(len(numbers), dtype=bool)
        pairs = np.stack([site[images], rows[atom[images]]], axis=1)
        for later, earlier in np.unique(pairs, axis=0):
            kept[later] &= not kept[earlier]
        return rows[kept[rows]], places[kept[rows]], multiplicities

    def keep(self, structure: Structure) -> bool:
        """Whether every operation maps the crystal onto itself."""
        numbers, lattice = np.array(structure.atomic_numbers), structure.lattice.matrix
        places = _wrapped(structure.frac_coords)
        for images in self._images(places):
            image, atom = _near(images, places, lattice)
            if len(np.unique(image[numbers[image] == numbers[atom]])) < len(numbers):
                return False
        return True

    def keep_cell(self, cell: gemmi.UnitCell) -> bool:
        """Whether every rotation maps the cell's lattice onto itself, but for `SAME_LENGTH`."""
        basis = np.array(cell.orth.mat)  # vectors in columns
        metric = basis.T @ basis
        off = np.abs(self.rotations.swapaxes(1, 2) @ metric @ self.rotations - metric)
        lengths = np.sqrt(np.diag(metric))
        return bool((off <= 2 * SAME_LENGTH * np.outer(lengths, lengths)).all())

    def _images(self, frac_coords: FloatArray) -> FloatArray:
        """Of S sites, in [0, 1), (O, S, 3)."""
        return _wrapped(frac_coords @ self.rotations.swapaxes(1, 2) + self.translations[:, None])


def _wrapped(frac_coords: FloatArray) -> FloatArray:
    """In [0, 1)."""
    wrapped: FloatArray = frac_coords % 1.0
    wrapped[wrapped == 1.0] = 0.0  # -1e-17 % 1.0 is 1.0
    return wrapped


def _distances(differences: FloatArray, lattice: FloatArray) -> FloatArray:
    """Å, of fractional differences (..., 3) that are near whole numbers."""
    distances: FloatArray = np.linalg.norm((differences - differences.round()) @ lattice, axis=-1)
    return distances


def _near(some: FloatArray, others: FloatArray, lattice: FloatArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of one of some places (S, 3), in [0, 1), and one of others (O, 3) that are the same place: their rows."""
    reach = SAME_PLACE * np.linalg.norm(np.linalg.inv(lattice), axis=0).max()  # in fractions, along any vector
    tree = cKDTree(others, boxsize=1.0)
    near = cKDTree(some, boxsize=1.0).sparse_distance_matrix(tree, reach, p=np.inf, output_type="ndarray")
    one, other = near["i"], near["j"]
    same = _distances(some[one] - others[other], lattice) < SAME_PLACE
    return one[same], other[same]


@dataclass(frozen=True)
class Symmetry:
    """What a CIF says about its symmetry.

    Attributes:
        listed: the operations that it lists, if it does.
        named: each name that it gives and the settings that this may be; only names that are known.
        unknown: names that are not.
    """

    listed: Operations | None
    named: tuple[tuple[str, tuple[gemmi.SpaceGroup, ...]], ...]
    unknown: tuple[str, ...]

    @property
    def absent(self) -> bool:
        """Whether it says nothing."""
        return self.listed is None and not self.named and not self.unknown

    def possible(self, cell: gemmi.UnitCell) -> list[Operations]:
        """The operations that may be meant: one, or those of each origin and setting that a name leaves open.

        Raises:
            Failure: `symmetry: ` and why there are none.
        """
        if self.listed is not None:
            if self.listed.number is None:
                raise Failure(f"symmetry: its {len(self.listed.rotations)} listed operations are no group")
            if not self.listed.keep_cell(cell):
                raise Failure(f"symmetry: its cell is not that of the listed operations, of {self.listed.name}")
            return [self.listed]
        if self.absent:
            return [tabulated(gemmi.find_spacegroup_by_number(1))]
        if self.unknown:
            raise Failure(
                f"symmetry: {self.unknown[0]!r} is no space group that is known, and no operations are listed"
            )
        name, settings = self.named[0]
        for other, others in self.named[1:]:
            groups = [setting.operations() for setting in others]
            settings = tuple(setting for setting in settings if setting.operations() in groups)
            if not settings:
                raise Failure(f"symmetry: it names both {name} and {other}")
        fitting = [setting for setting in settings if cell.is_compatible_with_spacegroup(setting)]
        if not fitting:
            raise Failure(f"symmetry: its cell is none of {name}")
        return [tabulated(setting) for setting in fitting]

    def check(self, structure: Structure) -> None:
        """Compare a crystal, made by the listed operations, with the names.

        Raises:
            Failure: `symmetry: ` and a name that means another symmetry, which the crystal does not have either.
        """
        if self.listed is None:
            return
        for name, settings in self.named:
            number = settings[0].number
            groups = [tabulated(setting) for setting in settings]
            fewer = all(len(group.rotations) < len(self.listed.rotations) for group in groups)
            few = len(structure) < FEW
            if number == self.listed.number or (few and number == symmetry_number(structure)):
                continue
            if not fewer and any(group.keep(structure) for group in groups):
                continue
            if few or number != symmetry_number(structure):  # of many atoms the slowest comes last
                only = "" if fewer else "only "
                raise Failure(f"symmetry: it names {name}, and lists {only}operations of {self.listed.name}")


def symmetry_number(structure: Structure) -> int | None:
    """The space group of a crystal, 1 to 230; None if spglib finds none."""
    cell = (structure.lattice.matrix.tolist(), structure.frac_coords.tolist(), structure.atomic_numbers)
    found = spglib.get_symmetry_dataset(cell, symprec=SYMMETRY_TOLERANCE)
    return None if found is None else int(found.number)


def read_symmetry(block: gemmi.cif.Block) -> Symmetry:
    """What a block says.

    Raises:
        Failure: `symmetry: ` and an operation that cannot be read, or a kind of symmetry that is not supported.
    """
    listed = next((texts for tag in OPERATIONS if (texts := texts_of(block, tag))), None)
    names: list[tuple[str, tuple[gemmi.SpaceGroup, ...]]] = []
    for tags, settings_of in ((HALL, _by_hall), (HERMANN_MAUGUIN, _by_symbol), (NUMBER, _by_number)):
        names += [(text, settings_of(text)) for tag in tags for text in texts_of(block, tag)[:1]]
    for tag, kind in UNSUPPORTED.items():
        if texts_of(block, tag) not in ([], ["0"]):
            raise Failure(f"symmetry: {tag} says that it is {kind}, which is not read")
    set_by_name = any(settings and not text.isdigit() for text, settings in names)
    idle = {"0", *texts_of(block, FULL)} if set_by_name else set()  # nothing beside a symbol that says the setting
    return Symmetry(
        None if listed is None else _listed(tuple(listed)),
        tuple((text, settings) for text, settings in names if settings),
        tuple(text for text, settings in names if not settings and text not in idle),
    )


def texts_of(block: gemmi.cif.Block, tag: str) -> list[str]:
    """Values of a tag, in a loop or alone, without those that say nothing."""
    texts = (gemmi.cif.as_string(value).strip() for value in block.find_values(tag))
    return [text for text in texts if text not in NULL]


@lru_cache(maxsize=1024)
def _listed(texts: tuple[str, ...]) -> Operations:
    """Operations as they are listed; most files of a set list the same ones."""
    for text in texts:
        if not re.fullmatch(r"[-+xyz\d./*\s]+(,[-+xyz\d./*\s]+){2}", text, re.IGNORECASE):
            raise Failure(f"symmetry: {text!r} is no operation")
    matrices = np.array([SymmOp.from_xyz_str(text).affine_matrix for text in texts])
    rotations, translations = matrices[:, :3, :3], matrices[:, :3, 3]
    if not np.allclose(np.abs(np.linalg.det(rotations)), 1.0):
        raise Failure("symmetry: one of its operations changes volumes")
    found = spglib.get_spacegroup_type_from_symmetry(rotations.round().astype(np.intc), translations, symprec=1e-3)
    name, number = ("none", None) if found is None else (found.international_short, found.number)
    return Operations(name, number, rotations, translations)


@lru_cache(maxsize=1024)
def _tabulated(name: str) -> Operations:
    setting = gemmi.find_spacegroup_by_name(name)
    matrices = np.array([operation.float_seitz() for operation in setting.operations()])
    return Operations(name, setting.number, matrices[:, :3, :3], matrices[:, :3, 3])


def tabulated(setting: gemmi.SpaceGroup) -> Operations:
    """The operations of a space group's setting."""
    return _tabulated(setting.xhm())


def _by_hall(text: str) -> tuple[gemmi.SpaceGroup, ...]:
    """The setting of a Hall symbol; none if it is no such symbol, or not a tabulated one."""
    try:
        found = gemmi.find_spacegroup_by_ops(gemmi.symops_from_hall(text))
    except (RuntimeError, ValueError):
        return ()
    return () if found is None else (found,)


def _by_symbol(text: str) -> tuple[gemmi.SpaceGroup, ...]:
    """The settings of a Hermann-Mauguin symbol: one where it says origin or axes, otherwise all of the same symbol."""
    symbol = re.sub(r"[_()]", "", text).strip()
    if said := SUFFIX.fullmatch(symbol):
        symbol = said[1] + SUFFIXES[said[2].upper()]
    found = None if symbol.isdigit() else gemmi.find_spacegroup_by_name(symbol)
    if found is None or ":" in symbol:
        return () if found is None else (found,)
    return tuple(setting for setting in gemmi.spacegroup_table() if setting.hm == found.hm)


def _by_number(text: str) -> tuple[gemmi.SpaceGroup, ...]:
    """All settings of a space group's type."""
    return _settings(int(text)) if text.isdigit() else ()


@lru_cache(maxsize=230)
def _settings(number: int) -> tuple[gemmi.SpaceGroup, ...]:
    return tuple(setting for setting in gemmi.spacegroup_table() if setting.number == number)


def ambiguous(options: Sequence[Operations]) -> Failure:
    """Several settings give a crystal that the file may declare."""
    names = ", ".join(option.name for option in options)
    return Failure(f"symmetry: it lists no operations, and its space group may be any of {names}")
