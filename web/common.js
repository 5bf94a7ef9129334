// What the pages share: asking the server, making elements, writing labels and times.

/** Most rows of one table; more would make a browser stand still. */
export const MOST_ROWS = 1000;

/** Asks the API; resolves to the whole answer, rejects with the server's own words. */
export async function ask(path, parameters = {}, options = {}) {
  const body = new URLSearchParams(parameters);
  const isLong = body.toString().length > 2000;
  const response = isLong
    ? await fetch(`api/v1/${path}`, { ...options, method: "POST", body })
    : await fetch(`api/v1/${path}?${body}`, options);
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Error(`${response.status} ${response.statusText}: ${text.slice(0, 300)}`);
  }
  if (answer.status !== "success") throw new Error(`${answer.errorType}: ${answer.error}`);
  return answer;
}

/** An element with properties and children; strings become text. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** `name{label="value"}`, names quoted where PromQL needs it. */
export function seriesText(labels) {
  const { __name__: metric, ...rest } = labels;
  const isPlain = (name) => /^[a-zA-Z_][a-zA-Z0-9_]*$/.test(name);
  const pairs = Object.entries(rest).map(
    ([name, value]) => `${isPlain(name) ? name : JSON.stringify(name)}=${JSON.stringify(value)}`,
  );
  if (metric && !/^[a-zA-Z_:][a-zA-Z0-9_:]*$/.test(metric)) {
    return `{${[JSON.stringify(metric), ...pairs].join(", ")}}`;
  }
  return pairs.length || !metric ? `${metric ?? ""}{${pairs.join(", ")}}` : metric;
}

/** Seconds since the epoch as text in UTC. */
export function timeText(seconds) {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? String(seconds) : date.toISOString().replace("T", " ");
}

/** A link that opens an expression. */
export function expressionLink(expr) {
  return element(
    "a",
    { href: `graph?${new URLSearchParams({ "g0.expr": expr, "g0.tab": "1" })}` },
    element("code", {}, expr),
  );
}

/** Shows what went wrong. */
export function errorBox(error) {
  return element("div", { className: "error", role: "alert" }, error.message ?? String(error));
}

/** A table of rows, cut where it gets too long, and told so. */
export function table(heads, rows, row) {
  const shown = rows.slice(0, MOST_ROWS).map(row);
  const made = element(
    "table",
    {},
    element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", {}, head)))),
    element("tbody", {}, ...shown),
  );
  if (rows.length <= MOST_ROWS) return [made];
  const note = `The first ${MOST_ROWS} of ${rows.length} are shown; ask the API for all of them.`;
  return [element("p", { className: "faint" }, note), made];
}

/** Fills a page again and again with what `load` makes, while somebody looks at it. */
export function refreshed(page, load, everyMs = 15_000) {
  const show = async () => {
    if (document.hidden) return;
    try {
      page.replaceChildren(...(await load()));
    } catch (error) {
      page.replaceChildren(errorBox(error));
    }
  };
  document.addEventListener("visibilitychange", show);
  setInterval(show, everyMs);
  return show();
}
