"""Niggli's reduced cell, as pymatgen finds it, on plain numbers. Runs in worker processes: no torch in here.

Source of the steps A1 to A8: Grosse-Kunstleve, Sauter and Adams 2004, doi 10.1107/S010876730302186X. Same steps, same
tolerances and same choice among equal cells as `Lattice.get_niggli_reduced_lattice`, which takes ten times as long: it
multiplies small matrices, and some symmetric cells take all of its 100 rounds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from atomrl.util.optional_imports import extra

with extra("crystals"):
    from pymatgen.core.lattice import Lattice
    from pymatgen.optimization.neighbors import find_points_in_spheres

FloatArray = NDArray[np.float64]

TOLERANCE = 1e-5
"""Of the comparisons, times the cube root of the volume."""

ANGLE_TOLERANCE = 1.0
"""Degrees, of the search for the reduced cell in the lattice."""

DELTA = 0.75
"""Of the LLL reduction."""

ORIGIN, PERIODIC = np.zeros((1, 3)), np.ones(3, dtype=np.int64)

ROUNDS = 100
"""A cell that is not reduced after this many is taken as it is then."""


def niggli_cell(lattice: FloatArray) -> FloatArray:
    """Right-handed reduced vectors of the same lattice, (3, 3).

    Args:
        lattice: vectors in rows, Å, (3, 3); they span a volume.

    Raises:
        ValueError: none was found.
    """
    start = lattice if is_lll_reduced(lattice) else Lattice(lattice).lll_matrix  # more stable for skewed cells
    tolerance = TOLERANCE * abs(_volume(start)) ** (1 / 3)
    parameters = _parameters(start @ start.T, tolerance)
    bases, volumes = _bases(lattice, parameters, tolerance, ANGLE_TOLERANCE)
    if not len(bases):
        raise ValueError("no reduced cell")
    chosen = int((volumes > 0).argmax())
    found: FloatArray = bases[chosen] @ lattice
    return found if volumes[chosen] * _volume(lattice) > 0 else -found


def is_lll_reduced(lattice: FloatArray) -> bool:
    """Whether pymatgen's LLL reduction leaves lattice vectors (3, 3) as they are; most cells near a reduced one are."""
    (aa, ab, ac), (_, bb, bc), (_, _, cc) = (lattice @ lattice.T).tolist()
    along_ab, along_ac = ab / aa, ac / aa
    rest_b = bb - along_ab * ab
    along_bc = (bc - along_ac * ab) / rest_b
    rest_c = cc - along_ac * ac - along_bc * along_bc * rest_b
    small = max(abs(along_ab), abs(along_ac), abs(along_bc)) <= 0.5
    return bool(small and rest_b >= (DELTA - along_ab**2) * aa and rest_c >= (DELTA - along_bc**2) * rest_b)


def similar_bases(lattice: FloatArray, parameters: FloatArray, ltol: float, angle_tol: float) -> FloatArray:
    """All bases of a lattice (not of a sublattice) whose lengths and angles are near the given ones.

    Args:
        lattice: vectors in rows, Å, (3, 3).
        parameters: lengths in Å and angles in degrees, (6,).
        ltol: tolerance of lengths, relative.
        angle_tol: tolerance of angles, degrees.

    Returns:
        Whole numbers, (M, 3, 3): `bases @ lattice` are the vectors. In the order of `Lattice.find_all_mappings`.
    """
    return _bases(lattice, parameters, ltol, angle_tol)[0]


def _bases(
    lattice: FloatArray, parameters: FloatArray, ltol: float, angle_tol: float
) -> tuple[FloatArray, NDArray[np.float64]]:
    """The bases of `similar_bases`, and of each its signed volume in units of the lattice's, 1 or -1."""
    wanted, angles = parameters[:3, None], parameters[3:]
    reach, lattice = float(wanted.max() * (1 + ltol)), np.ascontiguousarray(lattice)
    _, _, steps, lengths = find_points_in_spheres(ORIGIN, ORIGIN, reach, PERIODIC, lattice, 1e-8)
    near = (lengths < wanted * (1 + ltol)) & (lengths * (1 + ltol) > wanted)
    kept = near.any(0)
    near, steps = near[:, kept], steps[kept]
    units = steps @ lattice / lengths[kept, None]
    between = np.rad2deg(np.arccos((units @ units.T).clip(-1, 1)))

    def agree(i: int, j: int) -> NDArray[np.bool_]:
        agreeing: NDArray[np.bool_] = np.abs(between - angles[3 - i - j]) <= angle_tol
        agreeing &= near[i][:, None] & near[j]
        return agreeing

    first, second = np.nonzero(agree(0, 1))
    pair, third = np.nonzero(agree(0, 2)[first] & agree(1, 2)[second])
    bases = steps[np.array((first[pair], second[pair], third)).T]
    volumes = np.linalg.det(bases)
    whole = np.abs(np.abs(volumes) - 1) < 0.5
    return bases[whole], volumes[whole]


def _volume(lattice: FloatArray) -> float:
    """Signed volume of lattice vectors (3, 3), Å³; without NumPy, which takes longer for so few numbers."""
    (a, b, c), (d, e, f), (g, h, i) = lattice.tolist()
    return float(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))


def _parameters(gram: FloatArray, e: float) -> FloatArray:
    """Lengths (Å) and angles (degrees) of the reduced cell, (6,), from scalar products (3, 3) and a tolerance."""
    (a, y, n), (_, b, x), (_, _, c) = gram.tolist()
    x, n, y = 2 * x, 2 * n, 2 * y  # a, b, c: squared lengths; x, n, y: twice b.c, a.c, a.b
    for _ in range(ROUNDS):
        if b + e < a or (abs(a - b) < e and abs(x) > abs(n) + e):  # A1
            a, b, x, n = b, a, n, x
        if c + e < b or (abs(b - c) < e and abs(n) > abs(y) + e):  # A2
            b, c, n, y = c, b, y, n
            continue
        i, j, k = _signs(*(0 if abs(value) < e else math.copysign(1, value) for value in (x, n, y)))  # A3, A4
        x, n, y = j * k * x, i * k * n, i * j * y
        if abs(x) > b + e or (abs(x - b) < e and y - e > 2 * n) or (abs(x + b) < e and -e > y):  # A5
            sign = math.copysign(1, x)
            c, x, n = c + b - abs(x), x - 2 * sign * b, n - sign * y
        elif abs(n) > a + e or (abs(a - n) < e and y - e > 2 * x) or (abs(a + n) < e and -e > y):  # A6
            sign = math.copysign(1, n)
            c, x, n = c + a - abs(n), x - sign * y, n - 2 * sign * a
        elif abs(y) > a + e or (abs(a - y) < e and n - e > 2 * x) or (abs(a + y) < e and -e > n):  # A7
            sign = math.copysign(1, y)
            b, x, y = b + a - abs(y), x - sign * n, y - 2 * sign * a
        elif -e > x + n + y + a + b or abs(x + n + y + a + b) < e < y + (a + n) * 2:  # A8
            c, x, n = a + b + c + x + n + y, 2 * b + x + y, 2 * a + n + y
        else:
            break
    lengths = [math.sqrt(a), math.sqrt(b), math.sqrt(c)]
    cosines = [x / 2 / lengths[1] / lengths[2], n / 2 / lengths[0] / lengths[2], y / 2 / lengths[0] / lengths[1]]
    return np.array([*lengths, *(math.degrees(math.acos(cosine)) for cosine in cosines)])


def _signs(x: float, n: float, y: float) -> tuple[int, int, int]:
    """Which vectors to turn round, given the signs of b.c, a.c and a.b: to all acute, or to none acute."""
    if x * n * y == 1:
        return (-1 if x == -1 else 1), (-1 if n == -1 else 1), (-1 if y == -1 else 1)
    i, j, k = (-1 if x == 1 else 1), (-1 if n == 1 else 1), (-1 if y == 1 else 1)
    if i * j * k == -1:
        if y == 0:
            k = -1
        elif n == 0:
            j = -1
        elif x == 0:
            i = -1
    return i, j, k
