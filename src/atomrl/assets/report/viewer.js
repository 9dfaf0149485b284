/** What a crystal's cell is repeated to, in each direction. */
const REPEATS = [["1", "1 cell"], ["2", "2×2×2"]];
const STYLES = [["sticks", "ball and stick"], ["spheres", "spheres"]];
/** Radii of balls, as shares of van der Waals radii, and of sticks, in Å. */
const MOLECULE = [0.25, 0.14];
const CRYSTAL = [0.35, 0.1];
const FULL = 0.95;

/**
 * The dialog that shows one sample in 3-D, with its numbers and its file. It has one viewer for all of them, made at the
 * first click: a browser has few WebGL contexts.
 */
function viewerOf(report) {
  const dialog = document.getElementById("viewer");
  const state = { viewer: null, samples: [], at: 0, style: "sticks", repeats: "1", structure: null };
  const title = make("h2");
  const others = make("span", { class: "group" });
  const canvas = make("div", { style: "position: absolute; inset: 0" });
  const problem = make("p", { class: "notice", hidden: true });
  const numbers = make("div", { class: "numbers" });
  const file = make("div", { class: "file" });
  const repeats = choice(REPEATS, state.repeats, (value) => { state.repeats = value; render(); });
  const controls = make(
    "div",
    { class: "controls" },
    choice(STYLES, state.style, (value) => { state.style = value; restyle(); }),
    repeats,
    make("button", { type: "button", text: "Reset the view", on: { click: render } }),
    make("span", { class: "quiet", text: "drag to turn, scroll to zoom" }),
  );
  dialog.append(
    make(
      "div",
      { class: "bar" },
      title,
      others,
      make("button", { type: "button", text: "‹", title: "previous (left arrow)", on: { click: () => step(-1) } }),
      make("button", { type: "button", text: "›", title: "next (right arrow)", on: { click: () => step(1) } }),
      make("button", { type: "button", text: "Close", on: { click: () => dialog.close() } }),
    ),
    make("div", { class: "body" }, make("div", {}, make("div", { class: "stage" }, canvas, problem), controls), numbers),
    file,
  );
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (way && event.target.tagName !== "TEXTAREA") step(way);
  });

  function step(way) {
    state.at = (state.at + way + state.samples.length) % state.samples.length;
    show();
  }

  function show() {
    const sample = state.samples[state.at];
    title.replaceChildren(swatch(sample.side), `${report.sides[sample.side].name} ${sample.id}`, ...nameOf(report, sample));
    others.replaceChildren(...siblings(report, sample).map((other) => {
      const name = report.sides[other.side].name;
      const attributes = { type: "button", text: name, title: `the sample of the same size and noise in ${name}` };
      return make("button", { ...attributes, on: { click: () => { state.samples = [other]; state.at = 0; show(); } } });
    }));
    numbers.replaceChildren(numbersOf(report, sample));
    state.structure = structureAt(report, sample);
    file.replaceChildren(...fileOf(report, sample, state.structure));
    repeats.hidden = !state.structure?.lattice;
    render();
  }

  function render() {
    problem.hidden = true;
    if (!state.structure) return fail("This sample has no structure that can be drawn: its coordinates are not finite, or its file is not there.");
    const { backgroundColor, color } = getComputedStyle(document.body);
    if (!state.viewer) {
      try {
        // Twice the resolution, 3Dmol's default, is slow where a processor draws in place of a graphics card.
        state.viewer = $3Dmol.createViewer(canvas, { backgroundColor, antialias: true, upscale: false });
      } catch (error) {
        return fail(`This browser has no WebGL, which the 3-D view needs (${error}). Numbers and file are here.`);
      }
    }
    const { viewer, structure } = state;
    viewer.clear();
    const model = viewer.addModel(structure.shown, structure.ending);
    if (structure.lattice) {
      const times = Number(state.repeats); // once: atoms on the cell's faces stand on all of these
      viewer.replicateUnitCell(times, times, times, model, true);
      viewer.addUnitCell(model, { box: { color }, alabel: "a", blabel: "b", clabel: "c" });
    }
    viewer.setStyle({}, styleOf());
    viewer.zoomTo();
    if (structure.lattice) viewer.rotate(25, { x: 0.5, y: 0.9, z: 0 }); // not along an edge
    viewer.render();
  }

  function restyle() {
    if (!state.viewer || !state.structure) return;
    state.viewer.setStyle({}, styleOf());
    state.viewer.render();
  }

  function styleOf() {
    const colorscheme = "Jmol";
    if (state.style === "spheres") return { sphere: { scale: FULL, colorscheme } };
    const [scale, radius] = state.structure.lattice ? CRYSTAL : MOLECULE;
    return { sphere: { scale, colorscheme }, stick: { radius, colorscheme } };
  }

  function fail(text) {
    problem.textContent = text;
    problem.hidden = false;
    state.viewer?.clear();
  }

  return (samples, at) => {
    Object.assign(state, { samples, at });
    dialog.showModal();
    show();
  };
}

/** What a sample is, for people: its formula or SMILES. */
function nameOf(report, sample) {
  const text = valueOf(report, sample, "formula") ?? valueOf(report, sample, "smiles");
  return text ? [" ", make("span", { class: "quiet", text })] : [];
}

/** The samples of other sides that began from the same size and noise. */
function siblings(report, sample) {
  const { draw } = report.sides[sample.side];
  return report.sides.flatMap((side, number) => {
    const row = number !== sample.side && side.draw === draw ? side.samples.ids.indexOf(sample.id) : -1;
    return row < 0 ? [] : [{ side: number, row, id: sample.id }];
  });
}

function structureAt(report, sample) {
  const { endings, texts } = report.sides[sample.side].samples;
  try {
    return structureOf(endings[sample.row], texts[sample.row]);
  } catch (error) {
    return null; // a file that 3Dmol.js cannot read; the page says so, and shows its text
  }
}

function numbersOf(report, sample) {
  const rows = report.columns.flatMap((column) => {
    const value = valueOf(report, sample, column.name);
    if (value === null) return [];
    return [make("tr", { data: { column: column.name } }, make("td", { text: words(column.name), title: column.about }), make("td", {}, make("b", { text: shownIn(column, value) })))];
  });
  return make("table", {}, ...rows);
}

/** The sample's file, to copy and to save. */
function fileOf(report, sample, structure) {
  const { endings, texts } = report.sides[sample.side].samples;
  const [ending, text] = [endings[sample.row], texts[sample.row]];
  if (ending === null) return [make("p", { class: "quiet", text: "The evaluation has no file of this sample." })];
  const files = new Map([[ending, text]]);
  if (structure && ending !== "xyz") files.set("xyz", asXyz(structure, `sample_id=${sample.id}`));
  const area = make("textarea", { readonly: true, spellcheck: "false", "aria-label": "file" });
  const done = make("span", { class: "quiet", role: "status" });
  let chosen = ending;
  const choose = (name) => {
    chosen = name;
    area.value = files.get(name);
    done.textContent = "";
  };
  const copy = async () => {
    area.select();
    const copied = await navigator.clipboard?.writeText(area.value).then(() => true, () => false);
    done.textContent = copied ? "copied" : "it is selected: press Ctrl-C";
  };
  const save = () => {
    const name = `${report.sides[sample.side].label}_${sample.id}.${chosen}`.replace(/[^\w.-]+/g, "_");
    const link = make("a", { href: URL.createObjectURL(new Blob([area.value], { type: "text/plain" })), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  choose(ending);
  const buttons = make(
    "div",
    { class: "controls", style: "margin: 0" },
    choice([...files.keys()].map((name) => [name, name.toUpperCase()]), ending, choose),
    make("button", { type: "button", text: "Copy", data: { action: "copy" }, on: { click: copy } }),
    make("button", { type: "button", text: "Save", data: { action: "save" }, on: { click: save } }),
    done,
  );
  return [buttons, area];
}
