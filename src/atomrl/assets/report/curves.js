/** Size of a curve's drawing, and its margins: left, right, top, bottom. */
const CURVE = { width: 340, height: 170, left: 46, right: 8, top: 8, bottom: 20 };
/** Points of the running mean. */
const WINDOW = 9;

function showCurves(report, into) {
  into.append(make("h2", { text: "Training" }));
  if (!report.curves.length) {
    into.append(make("p", { class: "quiet", text: "No log of a training is here: an evaluation alone has none." }));
    return;
  }
  const numbers = report.runs.map(runColour(report));
  const lined = report.runs.map((run, place) => make("span", {}, swatch(numbers[place]), `${run.name}: ${counted(run.iterations, "iteration")}`));
  const each = Math.max(...report.curves.flatMap((curve) => curve.lines.map((line) => line.each)));
  const thin = each > 1 ? ` Each point is the mean of up to ${each} iterations.` : "";
  const legend = make("p", { class: "controls quiet" }, ...lined.filter((_, place) => report.runs[place].iterations));
  into.append(legend, make("p", { class: "quiet", text: `By iteration; thick: running mean over ${WINDOW} points, of a curve with more than ${2 * WINDOW}.${thin}` }));
  const iterations = range(report.curves.flatMap((curve) => curve.lines.flatMap((line) => line.x)));
  const drawn = (curves) => make("div", { class: "multiples" }, ...curves.map((curve) => curveOf(curve, numbers, iterations)));
  const others = report.curves.filter((curve) => !curve.first);
  into.append(drawn(report.curves.filter((curve) => curve.first)));
  if (!others.length) return;
  const more = make("details", { class: "more" }, make("summary", { text: `All other numbers of the log (${others.length})` }));
  more.addEventListener("toggle", () => {
    if (more.children.length === 1) more.append(drawn(others));
  });
  into.append(more);
}

/** The colour of a run is that of the last column that only it has, usually its trained model's. */
function runColour(report) {
  const shared = (side) => report.runs.filter((run) => run.sides.includes(side)).length > 1;
  let next = Math.max(report.sides.length, 1);
  return (run) => run.sides.findLast((side) => !shared(side)) ?? next++;
}

/** One number of the log, over the iterations of all of them. */
function curveOf(curve, numbers, [first, last]) {
  const { width, height, left, right, top, bottom } = CURVE;
  const [low, high] = range(curve.lines.flatMap((line) => line.y));
  const x = (iteration) => left + ((iteration - first) / (last - first)) * (width - left - right);
  const y = (value) => height - bottom - ((value - low) / (high - low)) * (height - top - bottom);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words(curve.name) });
  for (const tick of ticks(low, high, 2)) {
    svg.append(draw("line", { class: "axis", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
    svg.append(draw("text", { x: left - 5, y: y(tick) + 4, "text-anchor": "end", text: tickText(tick) }));
  }
  for (const tick of ticks(first, last, 3).filter((place) => Number.isInteger(place) && place >= 0)) {
    svg.append(draw("text", { x: x(tick), y: height - 5, "text-anchor": "middle", text: String(tick) }));
  }
  for (const line of curve.lines) {
    const stroke = colour(numbers[line.run]);
    const path = (values) => values.map((value, place) => `${place ? "L" : "M"}${x(line.x[place]).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const smooth = line.y.length > 2 * WINDOW;
    if (line.y.length === 1) svg.append(draw("circle", { cx: x(line.x[0]), cy: y(line.y[0]), r: 3, fill: stroke }));
    svg.append(draw("path", { class: smooth ? "raw" : "mean", d: path(line.y), stroke }));
    if (smooth) svg.append(draw("path", { class: "mean", d: path(runningMean(line.y)), stroke }));
  }
  const value = make("span", { class: "quiet" });
  follow(svg, curve, numbers, x, value);
  return make("figure", { data: { curve: curve.name } }, make("figcaption", {}, make("span", { text: words(curve.name) }), value), svg);
}

/** Show the values of the iteration nearest to the pointer, of the lines that have one. */
function follow(svg, curve, numbers, x, into) {
  const { height, top, bottom, width } = CURVE;
  const at = draw("line", { class: "at", y1: top, y2: height - bottom, visibility: "hidden" });
  svg.append(at);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const pointer = ((event.clientX - box.left) / box.width) * width;
    const places = curve.lines.map((line) => nearest(line.x, (iteration) => Math.abs(x(iteration) - pointer)));
    const there = curve.lines.map((line, number) => line.x[places[number]]);
    const at_pointer = nearest(there, (iteration) => Math.abs(x(iteration) - pointer));
    const iteration = there[at_pointer];
    const each = Math.max(...curve.lines.map((line) => line.each));
    const values = curve.lines.flatMap((line, number) =>
      Math.abs(there[number] - iteration) < each ? [swatch(numbers[line.run]), `${said(line.y[places[number]])} `] : [],
    );
    into.replaceChildren(`${iteration}: `, ...values);
    at.setAttribute("visibility", "visible");
    for (const end of ["x1", "x2"]) at.setAttribute(end, x(iteration));
  });
  svg.addEventListener("pointerleave", () => {
    into.replaceChildren();
    at.setAttribute("visibility", "hidden");
  });
}

function nearest(items, distance) {
  return items.reduce((best, item, place) => (distance(item) < distance(items[best]) ? place : best), 0);
}

/** Mean over a centred window, which is cut at the ends. */
function runningMean(values) {
  const half = Math.floor(WINDOW / 2);
  return values.map((_, place) => {
    const around = values.slice(Math.max(0, place - half), place + half + 1);
    return around.reduce((sum, value) => sum + value, 0) / around.length;
  });
}
