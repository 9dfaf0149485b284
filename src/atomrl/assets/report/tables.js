/** Width of the drawing of a row's intervals, and its height for each of them. */
const INTERVALS = [170, 9];

function showTables(report, into) {
  into.append(make("h2", { text: "Before and after" }));
  const without = report.runs.filter((run) => !run.sides.length);
  for (const run of without) {
    into.append(make("p", { class: "quiet", text: `${run.name} has no evaluation yet: its curves are all that there is to see.` }));
  }
  if (!report.tables.length) return;
  const main = report.tables.filter((table) => !table.title);
  if (main.length > 1) {
    const text = "These evaluations differ in profile, judge or conditions, so that their numbers stand in tables of their own.";
    into.append(make("p", { class: "quiet", text }));
  }
  for (const table of report.tables) into.append(...tableOf(report, table));
}

function tableOf(report, table) {
  const head = make("tr", {}, make("th", { text: "metric" }), make("th"));
  for (const side of table.sides) head.append(make("th", { class: "number" }, swatch(side), report.sides[side].name));
  const body = make("tbody", {}, ...table.rows.map((row) => rowOf(table, row)));
  const found = [make("div", { class: "scroll" }, make("table", { class: "metrics" }, make("thead", {}, head), body))];
  if (table.title) found.unshift(make("h3", { text: table.title[0].toUpperCase() + table.title.slice(1) }));
  const rewarded = table.rows.some((row) => row.rewarded);
  const legend = make("p", { class: "quiet" }, `${table.profile}; energies and forces by ${table.evaluator}; value [95 % interval] / denominator, shares in %. `);
  if (rewarded) legend.append(make("span", { class: "rewarded", text: "●" }), " rewarded in training. ");
  if (table.sides.length > 1) {
    legend.append("Coloured: the interval has no point in common with that of the first column of its evaluation.");
  }
  found.push(legend, ...notesOf(report, table));
  return found;
}

function rowOf(table, row) {
  const name = make("td", {}, row.label);
  if (row.rewarded) name.append(make("span", { class: "rewarded", text: " ●", title: "rewarded in training" }));
  const cells = row.cells.map((cell) =>
    make(
      "td",
      { class: "number", title: cell.verdict && `${cell.verdict} than in the first column` },
      make("b", { class: cell.verdict ?? "", text: cell.value }),
      " ",
      make("span", { class: "interval", text: cell.rest }),
    ),
  );
  return make("tr", { data: { metric: row.name } }, name, make("td", { class: "graph" }, intervals(table, row)), ...cells);
}

/** The intervals of a row, one below the other. */
function intervals(table, row) {
  const known = row.cells.flatMap((cell) => cell.at.filter((end) => end !== null));
  const [width, each] = INTERVALS;
  const height = each * row.cells.length + 4;
  const svg = draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  if (!known.length) return svg;
  const [low, high] = range(known);
  const x = (number) => ((number - low) / (high - low)) * width;
  row.cells.forEach((cell, place) => {
    const [from, at, to] = cell.at;
    const y = 2 + each * (place + 0.5);
    const stroke = colour(table.sides[place]);
    if (at === null) return;
    svg.append(draw("line", { x1: from === null ? 0 : x(from), x2: to === null ? width : x(to), y1: y, y2: y, stroke, "stroke-width": 2 }));
    svg.append(draw("circle", { cx: x(at), cy: y, r: 3.4, fill: stroke }));
  });
  return svg;
}

/** How the samples were drawn; under which conditions. */
function notesOf(report, table) {
  const drawn = table.sides.map((side, place) =>
    make("p", { class: "quiet" }, swatch(side), `${report.sides[side].name}: ${table.notes[place].text}; `, make("code", { text: table.notes[place].command })),
  );
  const conditions = table.conditions.map(([name, value]) => make("tr", {}, make("td", { text: words(name) }), make("td", {}, make("code", { text: value }))));
  return [make("details", {}, make("summary", { text: "How the samples were drawn and judged" }), ...drawn, make("table", { class: "quiet" }, ...conditions))];
}
