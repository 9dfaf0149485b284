/** Share of a cell's edge: an atom that is nearer to a face stands on all faces that are alike. */
const ON_FACE = 0.02;
/** Degrees by which a picture is turned, so that few atoms hide each other. */
const TURNED = [18, 24];

/**
 * A structure out of its text: atoms with `elem`, `x`, `y`, `z` (Å) and `bonds`, the text that 3Dmol.js shall draw, and
 * the lattice of a crystal, three vectors. Null if there is nothing to draw.
 */
function structureOf(ending, text) {
  if (ending === null) return null;
  const shown = ending === "sdf" ? `${text.split("M  END")[0]}M  END\n` : text.split("\n_atomrl_")[0];
  const found = $3Dmol.Parsers[ending](shown, {});
  const atoms = found[0] ?? [];
  if (!atoms.length || !atoms.every((atom) => [atom.x, atom.y, atom.z].every(Number.isFinite))) return null;
  const lattice = latticeOf(found.modelData?.[0]?.cryst);
  const structure = { ending, shown, atoms, lattice };
  const bonded = atoms.some((atom) => atom.bonds.length);
  if (ending !== "sdf" || bonded || atoms.length === 1) return structure;
  return structureOf("xyz", asXyz(structure)); // an invalid molecule has no bonds in its file: near atoms are joined
}

/** Three vectors (Å); null for a molecule. */
function latticeOf(cell) {
  if (!cell) return null;
  if (cell.matrix) {
    const of = cell.matrix.elements; // by columns, which are the vectors
    return [0, 3, 6].map((start) => [of[start], of[start + 1], of[start + 2]]);
  }
  const [alpha, beta, gamma] = [cell.alpha, cell.beta, cell.gamma].map((angle) => (angle * Math.PI) / 180);
  const x = Math.cos(beta);
  const y = (Math.cos(alpha) - Math.cos(beta) * Math.cos(gamma)) / Math.sin(gamma);
  return [
    [cell.a, 0, 0],
    [cell.b * Math.cos(gamma), cell.b * Math.sin(gamma), 0],
    [cell.c * x, cell.c * y, cell.c * Math.sqrt(Math.max(0, 1 - x * x - y * y))],
  ];
}

/** The structure as (extended) XYZ. */
function asXyz(structure, comment = "") {
  const { atoms, lattice } = structure;
  const cell = lattice ? `Lattice="${lattice.flat().map((number) => number.toFixed(6)).join(" ")}" pbc="T T T" ` : "";
  const lines = atoms.map(({ elem, x, y, z }) => [elem, ...[x, y, z].map((number) => number.toFixed(4))].join(" "));
  return [atoms.length, `${cell}Properties=species:S:1:pos:R:3 ${comment}`.trim(), ...lines, ""].join("\n");
}

/** A flat picture: atoms as discs, far ones first, bonds or the edges of the cell behind them. */
function picture(structure, width, height) {
  const flat = turned(structure);
  const points = [...flat.atoms, ...flat.corners];
  const [left, right] = extent(points.map((point) => point.x));
  const [top, bottom] = extent(points.map((point) => point.y));
  const scale = Math.min((width - 26) / (right - left + 0.1), (height - 26) / (bottom - top + 0.1), 26);
  const place = (point) => [
    width / 2 + scale * (point.x - (left + right) / 2),
    height / 2 + scale * (point.y - (top + bottom) / 2),
  ];
  const line = (from, to, style) => {
    const [[x1, y1], [x2, y2]] = [place(from), place(to)];
    return draw("line", { x1, y1, x2, y2, ...style });
  };
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
  for (const [from, to] of flat.edges) svg.append(line(flat.corners[from], flat.corners[to], { class: "edge" }));
  const bonds = structure.lattice ? [] : flat.atoms.flatMap((atom) => atom.bonds.map((other) => [atom, flat.atoms[other]]));
  for (const [from, to] of bonds) svg.append(line(from, to, { stroke: "var(--quiet)", "stroke-width": 2 }));
  for (const atom of [...flat.atoms].sort((one, other) => one.z - other.z)) {
    const [cx, cy] = place(atom);
    const radius = Math.max(3, Math.min(9, scale * (atom.elem === "H" ? 0.25 : 0.42)));
    const fill = `#${($3Dmol.elementColors.Jmol[atom.elem] ?? 0xff1493).toString(16).padStart(6, "0")}`;
    svg.append(draw("circle", { cx, cy, r: radius, fill, stroke: "var(--quiet)", "stroke-width": 0.7 }));
  }
  return svg;
}

function extent(numbers) {
  return [Math.min(...numbers), Math.max(...numbers)];
}

/** Atoms and corners of the cell, turned, with y downwards; edges join corners by their places. */
function turned({ atoms, lattice }) {
  const [around, over] = TURNED.map((angle) => (angle * Math.PI) / 180);
  const turn = ({ x, y, z }) => {
    const [u, v] = [x * Math.cos(around) + z * Math.sin(around), z * Math.cos(around) - x * Math.sin(around)];
    return { x: u, y: -(y * Math.cos(over) - v * Math.sin(over)), z: y * Math.sin(over) + v * Math.cos(over) };
  };
  const corners = [];
  const edges = [];
  if (lattice) {
    for (let corner = 0; corner < 8; corner += 1) {
      const sum = [0, 1, 2].map((axis) => lattice.reduce((total, vector, bit) => total + ((corner >> bit) & 1) * vector[axis], 0));
      corners.push(turn({ x: sum[0], y: sum[1], z: sum[2] }));
      for (const bit of [1, 2, 4]) if (!(corner & bit)) edges.push([corner, corner | bit]);
    }
  }
  const shown = lattice ? atoms.flatMap((atom) => onFaces(atom, lattice)) : atoms;
  return { atoms: shown.map((atom) => ({ ...turn(atom), elem: atom.elem, bonds: atom.bonds })), corners, edges };
}

/** An atom of a crystal, and its images on the opposite faces of the cell if it stands on one. */
function onFaces(atom, lattice) {
  const cross = ([a, b, c], [u, v, w]) => [b * w - c * v, c * u - a * w, a * v - b * u];
  const dot = (one, other) => one.reduce((sum, number, axis) => sum + number * other[axis], 0);
  const volume = dot(lattice[0], cross(lattice[1], lattice[2]));
  let found = [[atom.x, atom.y, atom.z]];
  lattice.forEach((vector, place) => {
    const share = dot(found[0], cross(lattice[(place + 1) % 3], lattice[(place + 2) % 3])) / volume;
    const way = Math.abs(share) < ON_FACE ? 1 : Math.abs(share - 1) < ON_FACE ? -1 : 0;
    if (way) found = found.concat(found.map((point) => point.map((number, axis) => number + way * vector[axis])));
  });
  return found.map(([x, y, z]) => ({ ...atom, x, y, z }));
}
