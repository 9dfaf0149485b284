"use strict";

/** An element; `text`, `on` and `data` are its text, its listeners and its data-* attributes, children may be texts. */
function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An element of an SVG. */
function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") node.textContent = value;
    else if (key === "on") for (const [kind, listener] of Object.entries(value)) node.addEventListener(kind, listener);
    else if (key === "data") Object.assign(node.dataset, value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** The page's data: JSON, deflated, in base64. */
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

/** A name of a column or of the log, for people. */
function words(name) {
  return name.replaceAll("_", " ");
}

/** A number in a few digits, but none before the point left out; a truth value as a word. */
function said(value, kind = "number") {
  if (value === null || value === undefined) return "–";
  if (kind === "flag") return value ? "yes" : "no";
  if (kind === "text") return String(value);
  const size = Math.abs(value);
  if (value !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return String(Number(size < 1000 ? value.toPrecision(4) : value.toFixed(1)));
}

/** A number of things. */
function counted(number, one) {
  return `${number} ${one}${number === 1 ? "" : "s"}`;
}

/** The colour of a side or of a run. */
function colour(number) {
  return `var(--c${number % 8})`;
}

function swatch(number) {
  return make("span", { class: "swatch", style: `background: ${colour(number)}` });
}

/** Round numbers in a range, at least `count` of them and at most two and a half times as many and one. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const digits = Math.floor(Math.log10(rough));
  const step = 10 ** digits * ([5, 2].find((factor) => factor * 10 ** digits <= rough) ?? 1);
  const found = [];
  for (let place = Math.ceil(low / step); place * step <= high * (1 + 1e-12) + 1e-300; place += 1) found.push(place * step);
  return found.map((tick) => Number(tick.toFixed(Math.min(100, Math.max(0, -digits)))));
}

/** A tick's number, with all its digits. */
function tickText(tick) {
  const size = Math.abs(tick);
  return tick !== 0 && (size < 1e-3 || size >= 1e5) ? tick.toExponential() : String(tick);
}

/** Two ends that differ, a little beyond the numbers between them. */
function range(numbers) {
  let low = Infinity;
  let high = -Infinity;
  for (const number of numbers) {
    low = Math.min(low, number);
    high = Math.max(high, number);
  }
  const beyond = high > low ? 0.04 * (high - low) : Math.abs(high) * 0.1 || 1;
  return [low - beyond, high + beyond];
}

/** One of several buttons is pressed; `chosen` is told which. */
function choice(options, pressed, chosen) {
  const group = make("span", { class: "group", role: "group" });
  for (const [value, label] of options) {
    const button = make("button", { type: "button", text: label, "aria-pressed": String(value === pressed), data: { value } });
    button.addEventListener("click", () => {
      for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
      chosen(value);
    });
    group.append(button);
  }
  return group;
}
