/** Size of a histogram's drawing, and its margins. */
const HISTOGRAM = { width: 340, height: 170, left: 38, right: 8, top: 8, bottom: 20 };

function showHistograms(report, into) {
  into.append(make("h2", { text: "Distributions" }));
  if (!report.histograms.length) {
    into.append(make("p", { class: "quiet", text: "There is no evaluation, and so nothing to count." }));
    return;
  }
  const named = report.sides.map((side, number) => make("span", {}, swatch(number), side.name));
  into.append(make("p", { class: "controls quiet" }, ...named, "shares of all samples of an evaluation, not only of those shown above"));
  into.append(make("div", { class: "multiples" }, ...report.histograms.map((histogram) => histogramOf(report, histogram))));
}

function histogramOf(report, histogram) {
  const { width, height, left, right, top, bottom } = HISTOGRAM;
  const bins = (histogram.labels ?? histogram.edges).length - (histogram.labels ? 0 : 1);
  const tallest = Math.max(...histogram.sides.flatMap((side) => side.shares), 1e-9) * 1.05;
  const x = (bin) => left + (bin / bins) * (width - left - right);
  const y = (share) => height - bottom - (share / tallest) * (height - top - bottom);
  const title = words(histogram.title) + (histogram.unit ? `, ${histogram.unit}` : "");
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": title });
  for (const tick of ticks(0, tallest, 2)) {
    svg.append(draw("line", { class: "axis", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
    svg.append(draw("text", { x: left - 5, y: y(tick) + 4, "text-anchor": "end", text: `${said(100 * tick)} %` }));
  }
  if (histogram.labels) bars(svg, histogram, x, y);
  else steps(svg, histogram, x, y);
  const [summary, whole] = remarks(report, histogram);
  const caption = make("figcaption", {}, make("span", { text: title, title: histogram.about }), make("span", { class: "quiet", text: summary, title: whole }));
  return make("figure", { data: { histogram: histogram.title } }, caption, svg);
}

/** Bars of several sides beside each other. */
function bars(svg, histogram, x, y) {
  const slot = x(1) - x(0);
  const wide = (slot * 0.84) / histogram.sides.length;
  histogram.sides.forEach((side, place) => {
    side.shares.forEach((share, bin) => {
      const about = draw("title", { text: `${histogram.labels[bin]}: ${said(100 * share)} %` });
      const at = x(bin) + slot * 0.08 + place * wide;
      svg.append(draw("rect", { x: at, y: y(share), width: wide, height: y(0) - y(share), fill: colour(side.side) }, about));
    });
  });
  const every = Math.ceil((histogram.labels.length * 22) / (x(histogram.labels.length) - x(0)));
  histogram.labels.forEach((text, bin) => {
    if (bin % every === 0) svg.append(draw("text", { x: x(bin + 0.5), y: HISTOGRAM.height - 5, "text-anchor": "middle", text }));
  });
}

/** Outlines of several sides above each other. */
function steps(svg, histogram, x, y) {
  for (const side of histogram.sides) {
    const outline = side.shares.map((share, bin) => `L${x(bin).toFixed(1)} ${y(share).toFixed(1)}H${x(bin + 1).toFixed(1)}`).join("");
    const stroke = colour(side.side);
    const d = `M${x(0)} ${y(0)}${outline}V${y(0)}`;
    svg.append(draw("path", { d, fill: stroke, "fill-opacity": 0.13, stroke, "stroke-width": 1.6 }));
  }
  const { edges } = histogram;
  const [low, high] = [edges[0], edges.at(-1)];
  for (const tick of ticks(low, high, 2)) {
    const at = x(((tick - low) / (high - low)) * (edges.length - 1));
    svg.append(draw("text", { x: at, y: HISTOGRAM.height - 5, "text-anchor": "middle", text: tickText(tick) }));
  }
}

/** What is not to be seen in a histogram: in short, and in full. */
function remarks(report, histogram) {
  if (histogram.left_out) return [`${histogram.left_out} rarer ones left out`, ""];
  const lacking = (histogram.sides ?? []).filter((side) => side.missing);
  const known = lacking.map((side) => `${report.sides[side.side].name}: ${side.missing} samples without a number`);
  const beyond = (histogram.beyond ?? []).some(Boolean);
  const short = [lacking.length ? `no number: ${lacking.map((side) => side.missing).join(", ")}` : "", beyond ? "outliers in the end bins" : ""];
  return [short.filter(Boolean).join("; "), known.join("\n")];
}
