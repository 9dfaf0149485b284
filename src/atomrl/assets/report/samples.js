/** Cards of a side that are shown at first, and how many more each time. */
const CARDS = 12;
const PICTURE = [180, 130];

const ORDERS = [["best", "best"], ["median", "median"], ["worst", "worst"], ["random", "random"]];
/** Where neither end of a column is better. */
const PLAIN_ORDERS = [["best", "lowest"], ["median", "median"], ["worst", "highest"], ["random", "random"]];

/** Conditions on a column of each kind: a name, and whether it takes a value. */
const TESTS = {
  number: [["≥", true], ["≤", true], ["=", true], ["is unknown", false]],
  flag: [["is yes", false], ["is no", false], ["is unknown", false]],
  text: [["contains", true], ["is unknown", false]],
};
const HOLDS = {
  "≥": (value, given) => value !== null && value >= Number(given),
  "≤": (value, given) => value !== null && value <= Number(given),
  "=": (value, given) => value !== null && value === Number(given),
  contains: (value, given) => value !== null && value.toLowerCase().includes(given.toLowerCase()),
  "is yes": (value) => value === 1,
  "is no": (value) => value === 0,
  "is unknown": (value) => value === null,
};

/** A sample is { side, row, id }. */
function valueOf(report, sample, column) {
  if (column === "sample_id") return sample.id;
  return report.sides[sample.side].samples.values[column]?.[sample.row] ?? null;
}

/** A value of a column with its unit. */
function shownIn(column, value) {
  return said(value, column.kind) + (column.unit && value !== null ? ` ${column.unit}` : "");
}

function showSamples(report, into) {
  into.append(make("h2", { text: "Samples" }));
  const sides = report.sides.flatMap((side, number) => (side.samples ? [number] : []));
  for (const run of report.runs.filter((run) => run.sides.length && !run.samples)) {
    const text = `The evaluation of ${run.name} has no table of single samples (evaluation.parquet): an earlier version wrote it. Evaluate again to see them.`;
    into.append(make("p", { class: "quiet", text }));
  }
  if (!sides.length) {
    into.append(make("p", { class: "quiet", text: "There are no samples to see." }));
    return;
  }
  const partly = sides.filter((side) => report.sides[side].samples.ids.length < report.sides[side].held);
  if (partly.length) into.append(make("p", { text: subsetSentence(report, partly), data: { part: "subset" } }));
  const state = { by: report.order_by ?? report.columns[0].name, order: "best", seed: 1, filters: [], sides: new Set(sides), together: false, cards: CARDS };
  const open = viewerOf(report);
  const grid = make("div", { class: "sides" });
  const refresh = () => {
    state.cards = CARDS;
    fillGrid(report, state, grid, open);
  };
  into.append(...controlsOf(report, state, sides, refresh), grid);
  refresh();
}

/** Which samples of a large evaluation are on the page. */
function subsetSentence(report, partly) {
  const counts = partly.map((side) => `${report.sides[side].samples.ids.length.toLocaleString("en")} of ${report.sides[side].held.toLocaleString("en")} of ${report.sides[side].name}`);
  const extremes = report.order_by ? `those with the lowest and the highest ${words(report.order_by)}, and others drawn at random` : "drawn at random";
  return `So that this file stays below 5 MB, only a part of the samples is here: ${counts.join(", ")}; ${extremes}. Tables and distributions are of all samples.`;
}

function controlsOf(report, state, sides, refresh) {
  const orders = make("span");
  const setOrders = () => {
    const better = report.columns.find((column) => column.name === state.by)?.better;
    orders.replaceChildren(choice(better ? ORDERS : PLAIN_ORDERS, state.order, (order) => {
      if (order === "random") state.seed += 1;
      state.order = order;
      refresh();
    }));
  };
  const by = columnChoice(report, "sort by", (name) => {
    state.by = name;
    setOrders();
    refresh();
  });
  by.value = state.by;
  setOrders();
  const first = make("div", { class: "controls" }, orders, make("label", {}, "by", by));
  if (sides.length > 1) {
    for (const side of sides) {
      const box = make("input", { type: "checkbox", checked: true, data: { side } });
      box.addEventListener("change", () => {
        state.sides[box.checked ? "add" : "delete"](side);
        refresh();
      });
      first.append(make("label", {}, box, swatch(side), report.sides[side].name));
    }
    first.append(togetherBox(report, state, sides, refresh));
  }
  return [first, filterControls(report, state, refresh)];
}

/** Whether samples that began from the same size and noise stand beside each other. */
function togetherBox(report, state, sides, refresh) {
  const same = sides.some((side, place) => sides.slice(place + 1).some((other) => report.sides[other].draw === report.sides[side].draw));
  const box = make("input", { type: "checkbox", data: { together: "" } });
  box.addEventListener("change", () => {
    state.together = box.checked;
    refresh();
  });
  const title = "samples of one id began from the same size and noise; the last column shown is sorted and filtered, the others follow it";
  return same ? make("label", { title }, box, "same draw side by side") : null;
}

function columnChoice(report, label, chosen) {
  const options = report.columns.map((column) => make("option", { value: column.name, text: words(column.name), title: column.about }));
  const select = make("select", { "aria-label": label }, ...options);
  select.addEventListener("change", () => chosen(select.value));
  return select;
}

function filterControls(report, state, refresh) {
  const test = make("select", { "aria-label": "condition" });
  const value = make("input", { type: "text", size: 10, "aria-label": "value" });
  const chips = make("span", { class: "controls", style: "margin: 0" });
  const kind = () => report.columns.find((column) => column.name === select.value).kind;
  const setTests = () => {
    test.replaceChildren(...TESTS[kind()].map(([name]) => make("option", { value: name, text: name })));
    setValue();
  };
  const setValue = () => { value.hidden = !TESTS[kind()].find(([name]) => name === test.value)[1]; };
  const select = columnChoice(report, "filter by", setTests);
  test.addEventListener("change", setValue);
  const add = (event) => {
    event.preventDefault();
    const wrong = !value.hidden && (value.value.trim() === "" || (kind() === "number" && !Number.isFinite(Number(value.value))));
    value.setCustomValidity(wrong ? (kind() === "number" ? "Give a number" : "Give a text") : "");
    if (!value.reportValidity()) return;
    state.filters.push({ column: select.value, test: test.value, given: value.hidden ? "" : value.value.trim() });
    value.value = "";
    setChips();
    refresh();
  };
  value.addEventListener("input", () => value.setCustomValidity(""));
  const setChips = () => chips.replaceChildren(...state.filters.map((filter) => {
    const text = `${words(filter.column)} ${filter.test} ${filter.given}`.trim();
    const drop = () => {
      state.filters.splice(state.filters.indexOf(filter), 1);
      setChips();
      refresh();
    };
    return make("button", { type: "button", text: `${text} ×`, title: "remove this filter", data: { filter: "" }, on: { click: drop } });
  }));
  select.value = state.by;
  setTests();
  const form = make("form", { class: "controls", style: "margin: 0" }, make("label", {}, "filter", select), test, value, make("button", { text: "Add filter" }));
  form.addEventListener("submit", add);
  return make("div", { class: "controls" }, form, chips);
}

/** A number that follows from an id and a seed alone, so that sides shuffle alike. */
function hashed(text, seed) {
  let hash = seed * 0x9e3779b1;
  for (const letter of text) hash = Math.imul(hash ^ letter.codePointAt(0), 0x85ebca6b) ^ (hash >>> 13);
  return Math.imul(hash ^ (hash >>> 16), 0xc2b2ae35) >>> 0;
}

/** The samples of a side that pass all filters, in the order that is asked for. */
function chosenOf(report, state, side) {
  const all = report.sides[side].samples.ids.map((id, row) => ({ side, row, id }));
  const passed = all.filter((sample) =>
    state.filters.every((filter) => HOLDS[filter.test](valueOf(report, sample, filter.column), filter.given)),
  );
  if (state.order === "random") return passed.sort((one, other) => hashed(one.id, state.seed) - hashed(other.id, state.seed));
  const column = report.columns.find(({ name }) => name === state.by);
  const sorted = passed.sort(byColumn(report, column, state.order === "worst" && !column.better));
  if (state.order === "worst" && column.better) return sorted.reverse();
  if (state.order !== "median") return sorted;
  // Where unknown is not the worst, the middle is that of the known ones, which stand first.
  const counted = column.better ? sorted : sorted.filter((sample) => valueOf(report, sample, column.name) !== null);
  const middle = (counted.length - 1) / 2;
  return sorted.map((sample, place) => [Math.abs(place - middle), sample]).sort(([one], [other]) => one - other).map(([, sample]) => sample);
}

/** The best first, an unknown value last: that a number is missing is the worst that can be said of a sample. */
function byColumn(report, column, reversed) {
  const sign = (column.better === "higher" ? -1 : 1) * (reversed ? -1 : 1);
  const compared = column.kind === "text" ? (one, other) => one.localeCompare(other, "en") : (one, other) => one - other;
  return (first, second) => {
    const [one, other] = [first, second].map((sample) => valueOf(report, sample, column.name));
    if (one === null || other === null) return (one === null) - (other === null);
    return sign * compared(one, other);
  };
}

/** What each shown side lists: samples, or null where a draw has none in it. */
function listed(report, state) {
  const sides = report.sides.flatMap((_, number) => (state.sides.has(number) ? [number] : []));
  if (!state.together || !sides.length) return sides.map((side) => [side, chosenOf(report, state, side)]);
  const leading = chosenOf(report, state, sides.at(-1));
  const { draw } = report.sides[sides.at(-1)];
  return sides.map((side) => {
    const rows = new Map(report.sides[side].samples.ids.map((id, row) => [id, row]));
    const follows = report.sides[side].draw === draw;
    return [side, leading.map(({ id }) => (follows && rows.has(id) ? { side, row: rows.get(id), id } : null))];
  });
}

function fillGrid(report, state, grid, open) {
  const lists = listed(report, state);
  grid.replaceChildren(...lists.map(([side, samples]) => {
    const shown = samples.slice(0, state.cards);
    const known = samples.filter((sample) => sample !== null);
    const { name, samples: all } = report.sides[side];
    const heading = make("h3", { style: `border-color: ${colour(side)}` }, name, make("span", { class: "quiet", text: `  ${known.length} of ${all.ids.length}` }));
    const cards = shown.map((sample) => (sample ? cardOf(report, state, sample, () => open(known, known.indexOf(sample))) : make("div", { class: "card empty", text: "not here" })));
    return make("div", { class: "side", data: { side } }, heading, make("div", { class: "cards" }, ...cards));
  }));
  const longest = Math.max(0, ...lists.map(([, samples]) => samples.length));
  grid.nextElementSibling?.remove();
  if (longest <= state.cards) return;
  const more = make("button", { type: "button", class: "more", text: "Show more" });
  more.addEventListener("click", () => {
    state.cards += 2 * CARDS;
    fillGrid(report, state, grid, open);
  });
  grid.after(more);
}

function cardOf(report, state, sample, open) {
  const main = report.order_by && report.columns.find(({ name }) => name === report.order_by);
  const by = report.columns.find(({ name }) => name === state.by);
  const shown = (column) => shownIn(column, valueOf(report, sample, column.name));
  const title = valueOf(report, sample, "formula") ?? sample.id;
  const second = by === main || !by ? [] : [`${words(by.name)}: ${shown(by)}`];
  const flags = report.columns.filter((column) => column.tag && valueOf(report, sample, column.name) === 1).map(({ name }) => words(name));
  const reason = report.columns.filter((column) => column.tag && column.kind === "text").map(({ name }) => valueOf(report, sample, name)).find((value) => value);
  return make(
    "button",
    { type: "button", class: "card", data: { id: sample.id }, on: { click: open } },
    make("span", { class: "picture" }, pictureOf(report, sample)),
    make("span", { class: "first" }, make("b", { text: title }), make("span", { text: main ? shown(main) : "" })),
    make("span", { class: "second" }, make("span", { text: second[0] ?? `${said(valueOf(report, sample, "atoms"))} atoms` }), make("span", { text: title === sample.id ? "" : sample.id })),
    make("span", { class: "tags" }, flags.join(" · "), reason ? make("span", { class: "failed", text: ` ${reason}`, title: reason }) : null),
  );
}

/** A depiction of a molecule, or atoms as they lie. */
function pictureOf(report, sample) {
  const depicted = report.sides[sample.side].samples.pictures[sample.row];
  if (depicted) return make("img", { class: "depiction", alt: "", src: `data:image/svg+xml;charset=utf-8,${encodeURIComponent(depicted)}` });
  const structure = structureAt(report, sample);
  return structure ? picture(structure, ...PICTURE) : make("span", { class: "quiet", text: "cannot be drawn" });
}
