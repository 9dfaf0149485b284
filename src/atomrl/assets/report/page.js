function showRuns(report, into) {
  const drawn = report.runs.map((run) => {
    const parts = run.is_run ? [counted(run.iterations, "iteration")] : [];
    parts.push(run.sides.length ? `evaluation of ${run.sides.map((side) => report.sides[side].name).join(", ")}` : "no evaluation yet");
    return make("p", { data: { run: run.name } }, make("b", { text: run.name }), `: ${parts.join("; ")}`);
  });
  into.append(...drawn);
}

function showSettings(report, into) {
  const { texts, differing } = report.settings;
  into.append(make("h2", { text: "Settings" }));
  const of = texts.flatMap((text, place) => (text === null ? [] : [place]));
  if (!of.length) into.append(make("p", { class: "quiet", text: "An evaluation alone has no config.yaml; its conditions stand below its table." }));
  if (differing.length) {
    const head = make("tr", {}, make("th", { text: "differs" }), ...of.map((place) => make("th", { text: report.runs[place].name })));
    const rows = differing.map(([key, values]) => make("tr", {}, make("td", {}, make("code", { text: key })), ...of.map((place) => make("td", {}, make("code", { text: values[place] ?? "–" })))));
    into.append(make("div", { class: "scroll" }, make("table", {}, head, ...rows)));
  }
  for (const place of of) {
    into.append(make("details", {}, make("summary", { text: `config.yaml of ${report.runs[place].name}` }), make("pre", { text: texts[place] })));
  }
}

async function start() {
  const data = document.getElementById("data");
  const report = await unpacked(data.textContent);
  data.remove();
  document.getElementById("title").textContent = document.title;
  const parts = { runs: showRuns, tables: showTables, training: showCurves, samples: showSamples, histograms: showHistograms, settings: showSettings };
  for (const [part, show] of Object.entries(parts)) show(report, document.getElementById(part));
  document.getElementById("footer").textContent = `Made by atomrl ${report.version}; structures are drawn by 3Dmol.js and RDKit.`;
  document.querySelector("main").hidden = false;
  document.body.dataset.ready = "";
}

start().catch((error) => {
  const failure = document.getElementById("failure");
  failure.textContent = `This report cannot be shown: ${error}. It needs a browser of 2023 or later.`;
  failure.hidden = false;
  throw error;
});
