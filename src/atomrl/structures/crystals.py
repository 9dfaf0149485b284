"""Crystals as padded tensors and as pymatgen structures, and which cells are fit to be looked at.

`check_cells` stands before every force field and matcher: a cell that is refused here costs nothing and cannot hang
or cheat them.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice

import numpy as np
import torch
from ase.data import covalent_radii
from torch import Tensor

from atomrl.core.records import Structures
from atomrl.structures.cells import Crystal, to_arrays
from atomrl.structures.listing import STRUCTURES, Listing
from atomrl.structures.molecules import Geometry
from atomrl.structures.padding import alike, join
from atomrl.util.errors import UserError
from atomrl.util.optional_imports import extra

with extra("crystals"):
    from pymatgen.core import Composition, Element, Lattice, Structure

MAX_NUMBER = 118
AT_ONCE = 1024
"""Crystals whose compositions are made together."""
PAIRS_AT_ONCE = 2_000_000
"""Pairs of atoms times images whose distances are held at one time: a few float64 arrays of 16 MB."""


@dataclass(frozen=True)
class CellBounds:
    """What a cell must satisfy to be evaluated.

    Attributes:
        min_length: Å, of a lattice vector. The shortest of a real crystal is about 2.2 Å (beryllium).
        max_length: Å. The longest in the field's sets (layered polytypes) is below 100 Å.
        min_angle: degrees. A Niggli-reduced cell has 60 to 120; other descriptions of a lattice are more skewed.
        max_angle: degrees.
        min_volume: Å³ per atom. Diamond has 5.7; a cell of 0.8 took CHGNet 88 s, a denser one all memory.
        max_volume: Å³ per atom. Caesium has 117, a diatomic molecule alone in a 10 Å cube has 500.
        min_distance: Å. H2 has 0.74 Å. CHGNet's energy of two neon atoms at 0.5-0.6 Å is 4 eV/atom too low.
        min_covalent_ratio: a distance must be at least this times the sum of the covalent radii (Cordero et al. 2008,
            as in ASE). Closer, CHGNet's energies fall again, for metals to or below those of real bonds (W2 at 0.5 Å,
            U2 at 0.6 Å, Gd2 at 2.16 Å = 0.55: 17 eV/atom too low), which a policy would find. The shortest
            of real bonds are at 0.66 (Cr-Cr, U=O), those in 1,200 cells of Perov-5 at 0.68 (Cs-N). 0 turns it off.
        max_coordinate: Å. Farther out, rounding moves the atoms of one cell against each other.
        max_gap: Å from each atom to its nearest neighbour or image. CHGNet sees no further than 6 Å.
    """

    min_length: float = 1.0
    max_length: float = 100.0
    min_angle: float = 10.0
    max_angle: float = 170.0
    min_volume: float = 3.0
    max_volume: float = 501.0
    min_distance: float = 0.65
    min_covalent_ratio: float = 0.6
    max_coordinate: float = 1e6
    max_gap: float = 6.0


def check_cells(
    structures: Structures, elements: Collection[int] | None = None, bounds: CellBounds | None = None
) -> list[str | None]:
    """Why a crystal is not fit to be evaluated; one entry per crystal, None where it is.

    Reasons, the first that holds: `nan` (a coordinate or lattice vector is not finite); `empty` (no atoms);
    `element`; `exploded` (a coordinate); `length`; `angle`; `volume`; `overlap`; `isolated`. Distances are made only
    for crystals that pass the checks of the cell, on a reduced cell, so that 27 images are enough however skewed the
    given one is.

    Args:
        structures: B crystals.
        elements: atomic numbers that are known; all if None.
        bounds: `CellBounds()` if None.

    Raises:
        UserError: the structures have no cell.
    """
    if structures.cell is None:
        raise UserError("these structures have no cell: check_cells is for crystals")
    bounds = bounds or CellBounds()
    mask, raw_cell = structures.mask.bool(), structures.cell.detach().double()
    raw = torch.where(mask[..., None], structures.positions.detach().double(), 0.0)
    finite = torch.isfinite(raw).all(-1).all(-1) & torch.isfinite(raw_cell).flatten(1).all(1)
    fallback = torch.eye(3, dtype=torch.float64, device=raw.device) * 10
    # Squares of numbers beyond 1e100 overflow; such a cell is refused for its length anyway.
    cell = torch.where(finite[:, None, None], raw_cell, fallback).clamp(-1e100, 1e100)
    lengths, angles, volume = _measures(cell)
    atoms = mask.sum(1)
    per_atom = volume / atoms.clamp(min=1)
    conditions = {
        "nan": ~finite,
        "empty": atoms == 0,
        "element": (mask & ~_known(structures.numbers, elements)).any(1),
        "exploded": (raw.abs() > bounds.max_coordinate).flatten(1).any(1),
        "length": ((lengths < bounds.min_length) | (lengths > bounds.max_length)).any(1),
        "angle": ((angles < bounds.min_angle) | (angles > bounds.max_angle)).any(1),
        "volume": (per_atom < bounds.min_volume) | (per_atom > bounds.max_volume),
    }
    refused = torch.stack(list(conditions.values())).any(0)
    conditions["overlap"], conditions["isolated"] = torch.zeros_like(refused), torch.zeros_like(refused)
    rows = (~refused).nonzero()[:, 0]
    for places in alike(atoms[rows].tolist(), PAIRS_AT_ONCE // 27):
        part = rows[torch.tensor(places, device=rows.device)]
        width = int(mask[part].any(0).nonzero().max()) + 1
        near, far = _crowding(
            structures.numbers[part, :width], raw[part, :width], mask[part, :width], cell[part], bounds
        )
        conditions["overlap"][part], conditions["isolated"][part] = near, far
    held = torch.stack(list(conditions.values()), dim=1).tolist()
    return [next((reason for reason, holds in zip(conditions, row, strict=True) if holds), None) for row in held]


def reduced_cells(cell: Tensor) -> Tensor:
    """Minkowski-reduced vectors of the same lattices: each the shortest possible, (B, 3, 3) float64.

    Semaev's greedy algorithm (2001, doi 10.1007/3-540-44670-2_13) on the whole batch: reduce the longest vector by
    the other two, sort, until nothing changes. Cells must have a volume.
    """
    corners = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=cell.dtype, device=cell.device)] * 2)
    for _ in range(100):  # far more than the bounds of `check_cells` allow a cell to need
        order = cell.norm(dim=2).argsort(dim=1, stable=True)
        cell = cell.gather(1, order[..., None].expand_as(cell))
        a, b, c = cell.unbind(1)
        b = b - ((a * b).sum(1) / (a * a).sum(1)).round()[:, None] * a
        plane = torch.stack([a, b], dim=1)
        gram = plane @ plane.transpose(1, 2)
        place = torch.linalg.solve(gram, (plane @ c[..., None])[..., 0]).round()
        candidates = c[:, None] - (place[:, None] + corners) @ plane
        square = (candidates**2).sum(2)
        best = candidates.gather(1, square.argmin(1)[:, None, None].expand(-1, 1, 3))[:, 0]
        shorter = square.amin(1) < (1 - 1e-9) * (c * c).sum(1)
        following = torch.stack([a, b, torch.where(shorter[:, None], best, c)], dim=1)
        if torch.allclose(following, cell, rtol=1e-9, atol=1e-12):
            break
        cell = following
    return cell


def to_pymatgen(structures: Structures) -> list[Structure]:
    """The same crystals as pymatgen structures, in order; Cartesian coordinates are kept.

    Raises:
        UserError: no cell, or one that `check_cells` would call `nan` or `empty`.
    """
    crystals = to_crystals(structures)
    if not all(len(crystal.numbers) and np.isfinite(crystal.lattice).all() for crystal in crystals):
        raise UserError("a structure has no atoms or a cell that is not finite: leave out what check_cells refuses")
    return [
        Structure(Lattice(lattice), [Element.from_Z(number) for number in numbers.tolist()], frac_coords)
        for numbers, frac_coords, lattice in crystals
    ]


def to_crystals(structures: Structures) -> list[Crystal]:
    """The B crystals of a padded batch as unpadded arrays, in order. Cells must have a volume.

    Raises:
        UserError: the structures have no cell.
    """
    if structures.cell is None:
        raise UserError("these structures have no cell: they are molecules, not crystals")
    cell = structures.cell.detach().cpu().double()
    frac_coords = torch.linalg.solve(cell, structures.positions.detach().cpu().double(), left=False).numpy()
    numbers = structures.numbers.detach().cpu().numpy()
    mask = structures.mask.detach().cpu().bool().numpy()
    return [
        Crystal(z[real], xyz[real], lattice)
        for z, xyz, real, lattice in zip(numbers, frac_coords, mask, cell.numpy(), strict=True)
    ]


def from_pymatgen(crystals: Sequence[Structure], dtype: torch.dtype = torch.float64) -> Structures:
    """Ordered pymatgen structures as one padded batch."""
    return from_crystals([to_arrays(crystal) for crystal in crystals], dtype)


def from_crystals(crystals: Sequence[Crystal], dtype: torch.dtype = torch.float64) -> Structures:
    """Unpadded arrays as one padded batch."""
    atoms = join([Geometry(numbers, frac_coords @ lattice) for numbers, frac_coords, lattice in crystals], dtype)
    cell = torch.zeros(len(crystals), 3, 3, dtype=dtype)
    for row, crystal in enumerate(crystals):
        cell[row] = torch.as_tensor(crystal.lattice, dtype=dtype)
    return replace(atoms, cell=cell)


def compositions(structures: Structures) -> list[Composition]:
    """What each crystal consists of, whatever its geometry; atomic numbers that are no element are left out."""
    counts = torch.zeros(len(structures), MAX_NUMBER + 1, dtype=torch.int64)
    numbers = torch.where(structures.mask.bool(), structures.numbers, 0).cpu()
    numbers = torch.where((numbers > 0) & (numbers <= MAX_NUMBER), numbers, 0)
    counts.scatter_add_(1, numbers, torch.ones_like(numbers))
    return [
        Composition({_element(number): row[number] for number in range(1, MAX_NUMBER + 1) if row[number]})
        for row in counts.tolist()
    ]


def compositions_of(crystals: Iterable[Crystal]) -> Iterator[Composition]:
    """What each of any number of crystals consists of, in their order; `AT_ONCE` of them are padded together."""
    rest = iter(crystals)
    while some := list(islice(rest, AT_ONCE)):
        yield from compositions(from_crystals(some))


def readable_formula(composition: Composition) -> str:
    """Reduced formula for people."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No Pauling electronegativity")  # of noble gases: formulas are sorted by it
        return str(composition.reduced_formula)


def _measures(cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lengths in Å (B, 3), angles in degrees (B, 3), volumes in Å³ (B,)."""
    lengths = cell.norm(dim=2)
    units = cell / lengths.clamp(min=1e-12)[..., None]
    cosines = torch.stack([(units[:, i] * units[:, j]).sum(1) for i, j in ((1, 2), (0, 2), (0, 1))], dim=1)
    volumes = (cell[:, 0] * torch.linalg.cross(cell[:, 1], cell[:, 2])).sum(1).abs()
    return lengths, cosines.clamp(-1, 1).arccos().rad2deg(), volumes


def _crowding(
    numbers: Tensor, positions: Tensor, mask: Tensor, cell: Tensor, bounds: CellBounds
) -> tuple[Tensor, Tensor]:
    """Whether atoms are too close, and whether one has no neighbour near, both (B,), images included."""
    atoms = mask.shape[1]
    cell = reduced_cells(cell)
    frac_coords = torch.linalg.solve(cell, positions, left=False)
    radii = torch.as_tensor(covalent_radii, dtype=cell.dtype, device=cell.device)[numbers.clamp(0, MAX_NUMBER)]
    near, far = torch.zeros_like(mask[:, 0]), torch.zeros_like(mask[:, 0])
    step = max(1, PAIRS_AT_ONCE // (27 * len(mask) * atoms))
    for start in range(0, atoms, step):  # all of them at once, but for a crystal of hundreds of atoms
        rows = slice(start, start + step)
        nearest = _nearest(frac_coords, rows, cell).masked_fill(~(mask[:, rows, None] & mask[:, None]), torch.inf)
        allowed = bounds.min_covalent_ratio * (radii[:, rows, None] + radii[:, None])
        near |= (nearest < allowed.clamp(min=bounds.min_distance)).flatten(1).any(1)
        far |= (mask[:, rows] & (nearest.amin(2) > bounds.max_gap)).any(1)
    return near, far


def _nearest(frac_coords: Tensor, rows: slice, cell: Tensor) -> Tensor:
    """Distance of some of N atoms to the nearest image of each, but to themselves, Å, (B, rows, N).

    In a Minkowski-reduced cell the nearest image of an atom is among the 27 around its wrapped displacement.
    """
    displacement = frac_coords[:, rows, None] - frac_coords[:, None]
    displacement = (displacement - displacement.round()) @ cell[:, None]
    shifts = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=cell.dtype, device=cell.device)] * 3) @ cell
    squares = cell.new_zeros(len(cell), 27, *displacement.shape[1:3])
    for axis in range(3):  # axis by axis: an array of (B, 27, rows, N, 3) differences would be the largest by far
        squares += (displacement[:, None, ..., axis] + shifts[:, :, None, None, axis]) ** 2
    itself = torch.eye(frac_coords.shape[1], dtype=torch.bool, device=cell.device)[rows]
    squares[:, 13].masked_fill_(itself, torch.inf)  # shift (0, 0, 0)
    return squares.amin(1).sqrt()


def _known(numbers: Tensor, elements: Collection[int] | None) -> Tensor:
    """Which atomic numbers are among the elements."""
    known = torch.arange(1, MAX_NUMBER + 1) if elements is None else torch.tensor(sorted(elements))
    return torch.isin(numbers, known.to(numbers.device))


@cache
def _element(number: int) -> Element:
    """The element of an atomic number; pymatgen looks it up slowly."""
    return Element.from_Z(number)


def _content(crystal: Structure) -> tuple[bytes, ...]:
    """Cell, places and atoms."""
    amounts = sorted(crystal.composition.get_el_amt_dict().items())
    return crystal.lattice.matrix.tobytes(), crystal.frac_coords.tobytes(), repr(amounts).encode()


CRYSTALS = Listing(
    listed=to_pymatgen,
    check=check_cells,
    content=_content,
    formula=lambda crystal: readable_formula(crystal.composition),
    noun="crystals",
    forms=frozenset({STRUCTURES}),
)
"""Crystals as pymatgen structures."""
