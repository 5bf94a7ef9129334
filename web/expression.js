// The page of expressions: asks one, shows its value at a time as a table, or over a range as a graph.
// What is asked is in the address, named as Prometheus names it (g0.expr, g0.tab, ...), so that links of
// alerts open here.

import { ask, element, errorBox, seriesText, table, timeText } from "./common.js";
import { graph } from "./graph.js";

/** About so many steps a graph has unless another step is asked for. */
const STEPS = 250;
const UNITS = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86400, w: 604800, y: 31536000 };

/** Shows the form, and the answer if the address asks for one. */
export function expression(page) {
  const asked = new URLSearchParams(location.search);
  const text = element("textarea", { ariaLabel: "Expression", spellcheck: false });
  text.value = asked.get("g0.expr") ?? "";
  const names = element("input", { ariaLabel: "Metric", placeholder: "Insert a metric", size: 16 });
  names.setAttribute("list", "metrics");
  const range = element("input", { size: 5, value: asked.get("g0.range_input") ?? "1h" });
  const end = element("input", { size: 18, placeholder: "now", value: asked.get("g0.end_input") ?? "" });
  const step = element("input", { size: 5, placeholder: "auto", value: asked.get("g0.step_input") ?? "" });
  const tabs = ["Graph", "Table"].map((name, tab) =>
    element("button", { type: "button", onclick: () => execute(tab) }, name),
  );
  const answer = element("div", { ariaLive: "polite" });
  const form = element(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        execute(tab);
      },
    },
    text,
    element(
      "div",
      { className: "controls" },
      element("button", { type: "submit" }, "Execute"),
      ...tabs,
      element("label", {}, "Range ", range),
      element("label", {}, "End (UTC) ", end),
      element("label", {}, "Step ", step),
      names,
      element("datalist", { id: "metrics" }),
    ),
  );
  page.replaceChildren(form, answer);
  let tab = asked.get("g0.tab") === "0" ? 0 : 1;
  let running = null;

  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) form.requestSubmit(event.preventDefault());
  });
  names.addEventListener("focus", () => fillNames(page.querySelector("#metrics")), { once: true });
  names.addEventListener("change", () => {
    text.setRangeText(names.value, text.selectionStart, text.selectionEnd, "end");
    names.value = "";
    text.focus();
  });

  async function execute(chosen) {
    tab = chosen;
    tabs.forEach((button, at) => button.setAttribute("aria-pressed", String(at === tab)));
    const address = new URLSearchParams({ "g0.expr": text.value, "g0.tab": String(tab) });
    const inputs = { range_input: range, end_input: end, step_input: step };
    for (const [name, input] of Object.entries(inputs)) {
      if (input.value) address.set(`g0.${name}`, input.value);
    }
    history.replaceState(null, "", `?${address}`);
    running?.abort();
    if (!text.value.trim()) return answer.replaceChildren();
    const own = (running = new AbortController());
    answer.replaceChildren(element("p", { className: "faint" }, "Asking..."));
    try {
      const shown = await (tab === 0 ? asGraph : asTable)(own.signal);
      if (running === own) answer.replaceChildren(...shown);
    } catch (error) {
      if (running === own) answer.replaceChildren(errorBox(error));
    }
  }

  function endSeconds() {
    if (!end.value) return Date.now() / 1000;
    const ms = Date.parse(/Z|[+-]\d\d:?\d\d$/.test(end.value) ? end.value : `${end.value.trim().replace(" ", "T")}Z`);
    if (Number.isNaN(ms)) throw new Error(`"${end.value}" is no time: write it as 2026-11-21 12:00:00`);
    return ms / 1000;
  }

  async function asTable(signal) {
    const begun = performance.now();
    const time = end.value ? { time: endSeconds() } : {};
    const found = await ask("query", { query: text.value, ...time }, { signal });
    return [summary(found, begun), ...notes(found), ...values(found.data)];
  }

  async function asGraph(signal) {
    const begun = performance.now();
    const length = seconds(range.value);
    const to = endSeconds();
    const every = step.value ? seconds(step.value) : Math.max(Math.floor(length / STEPS), 1);
    const times = { start: to - length, end: to, step: every };
    const found = await ask("query_range", { query: text.value, ...times }, { signal });
    return [summary(found, begun), ...notes(found), ...graph(found.data.result, times)];
  }

  text.focus();
  if (text.value) execute(tab);
  else tabs[tab].setAttribute("aria-pressed", "true");
}

async function fillNames(list) {
  const { data } = await ask("label/__name__/values", { limit: 10_000 });
  list.replaceChildren(...data.map((name) => element("option", { value: name })));
}

/** A duration such as `1h30m` in seconds. */
function seconds(text) {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|[smhdwy])/g)];
  const length = parts.reduce((sum, [, number, unit]) => sum + number * UNITS[unit], 0);
  if (parts.map(([part]) => part).join("") !== text.trim() || !(length > 0)) {
    throw new Error(`"${text}" is no duration: write it as 5m or 1h30m`);
  }
  return length;
}

function summary(found, begun) {
  const { resultType, result } = found.data;
  const count = Array.isArray(result) && resultType !== "scalar" && resultType !== "string" ? result.length : 1;
  const took = Math.round(performance.now() - begun);
  return element("p", { className: "faint" }, `${resultType}, ${count} series, ${took} ms`);
}

function notes({ warnings = [], infos = [] }) {
  return [
    ...warnings.map((text) => element("div", { className: "warning" }, text)),
    ...infos.map((text) => element("div", { className: "info" }, text)),
  ];
}

function values({ resultType, result }) {
  const row = (first, ...lines) =>
    element(
      "tr",
      {},
      element("td", {}, first),
      element("td", { className: "value" }, ...lines.map((line) => element("div", {}, line))),
    );
  if (resultType === "scalar" || resultType === "string") {
    return table(["Time", "Value"], [result], ([time, value]) => row(timeText(time), value));
  }
  if (result.length === 0) return [element("p", {}, "Nothing was found at this time.")];
  return table(["Series", "Value"], result, ({ metric, value, values = [], histogram, histograms = [] }) => {
    const points = [...(value ? [value] : values), ...(histogram ? [histogram] : histograms)];
    const text = ([time, what]) => (value || histogram ? print(what) : `${print(what)} @ ${timeText(time)}`);
    return row(seriesText(metric), ...points.map(text));
  });
}

/** A float, or a native histogram by its count, its sum and its buckets. */
function print(value) {
  if (typeof value === "string") return value;
  const ends = ["(]", "[)", "()", "[]"];
  const buckets = (value.buckets ?? []).map(([kind, from, to, count]) => {
    const [left, right] = ends[kind];
    return `${left}${from}, ${to}${right}: ${count}`;
  });
  return `count ${value.count}, sum ${value.sum} { ${buckets.join("  ")} }`;
}
