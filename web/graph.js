// Lines over time, as SVG: no more than can be told apart.

import { element, seriesText, timeText } from "./common.js";

/** More lines than this nobody tells apart. */
const MOST_LINES = 50;
const WIDTH = 1000;
const HEIGHT = 340;
const LEFT = 70;
const BOTTOM = 24;
const SVG = "http://www.w3.org/2000/svg";

/** A graph of a matrix, with its legend. */
export function graph(result, { start, end, step }) {
  const lines = result.slice(0, MOST_LINES).map(({ metric, values = [] }, at) => ({
    metric,
    color: `hsl(${(at * 137.5) % 360} 65% 48%)`,
    points: values.map(([time, value]) => [time, Number(value.replace("Inf", "Infinity"))]),
  }));
  const finite = lines.flatMap(({ points }) => points.map(([, value]) => value)).filter(Number.isFinite);
  if (finite.length === 0) return [element("p", {}, "Nothing to draw was found in this range.")];
  const [low, high] = finite.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  const ticks = ticksOf(low, high);
  const [bottom, top] = [ticks[0], ticks[ticks.length - 1]];
  const x = (time) => LEFT + ((time - start) / (end - start)) * (WIDTH - LEFT - 10);
  const y = (value) => 10 + ((top - value) / (top - bottom)) * (HEIGHT - BOTTOM - 20);

  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": "Graph" });
  for (const tick of ticks) {
    drawing.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - 10, y1: y(tick), y2: y(tick) }));
    drawing.append(label(number(tick), { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }));
  }
  for (let part = 0; part <= 4; part++) {
    const time = start + ((end - start) * part) / 4;
    const anchor = part === 0 ? "start" : part === 4 ? "end" : "middle";
    drawing.append(label(timeText(time).slice(5, 19), { x: x(time), y: HEIGHT - 6, "text-anchor": anchor }));
  }
  for (const { metric, color, points } of lines) {
    const group = svg("g", {});
    group.style.color = color;
    const title = svg("title", {});
    title.textContent = seriesText(metric);
    group.append(title, ...runs(points, step).map((run) => drawRun(run, x, y)));
    drawing.append(group);
  }
  return [drawing, legend(lines, result.length)];
}

/** Points without gaps between them; what is not finite is a gap. */
function runs(points, step) {
  const found = [];
  let last = -Infinity;
  for (const [time, value] of points) {
    if (!Number.isFinite(value)) continue;
    if (time - last > step * 1.5) found.push([]);
    found[found.length - 1].push([time, value]);
    last = time;
  }
  return found;
}

function drawRun(run, x, y) {
  const [[time, value]] = run;
  if (run.length === 1) return svg("circle", { cx: x(time), cy: y(value), r: 1.5 });
  const at = run.map(([time, value]) => `${x(time).toFixed(1)},${y(value).toFixed(1)}`);
  return svg("polyline", { points: at.join(" ") });
}

/** Round values from below the lowest to above the highest. */
function ticksOf(low, high) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const size = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const first = Math.floor(low / size);
  const last = Math.max(Math.ceil(high / size), first + 1);
  return Array.from({ length: last - first + 1 }, (_, at) => (first + at) * size);
}

function number(value) {
  return Number(value.toPrecision(6)).toLocaleString("en", { notation: "compact", maximumSignificantDigits: 5 });
}

function legend(lines, count) {
  const items = lines.map(({ metric, color, points }) => {
    const swatch = element("span", { className: "swatch" });
    const last = points.length > 0 ? ` ${number(points[points.length - 1][1])}` : "";
    const item = element("li", {}, swatch, element("span", { className: "labels" }, seriesText(metric) + last));
    item.style.color = color;
    return item;
  });
  const note = `The first ${lines.length} of ${count} series are drawn.`;
  const more = count > lines.length ? [element("li", { className: "faint" }, note)] : [];
  return element("ul", { className: "legend" }, ...items, ...more);
}

function label(text, attributes) {
  const made = svg("text", attributes);
  made.textContent = text;
  return made;
}

function svg(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}
