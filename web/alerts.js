// The page of alerts: every alerting rule that is not quiet, with its alerts.

import { ask, element, expressionLink, refreshed, seriesText, table, timeText } from "./common.js";

const ORDER = ["firing", "pending", "unknown", "inactive"];

/** Shows alerts, those that fire first. */
export function alerts(page) {
  document.title = "Alerts - Larum";
  refreshed(page, async () => {
    const { data } = await ask("rules", { type: "alert" });
    const found = data.groups.flatMap((group) => group.rules.map((rule) => ({ group, rule })));
    const count = (state) => found.filter(({ rule }) => rule.state === state).length;
    const sorted = found.sort((a, b) => ORDER.indexOf(a.rule.state) - ORDER.indexOf(b.rule.state));
    const quiet = sorted.filter(({ rule }) => rule.alerts.length === 0);
    return [
      element(
        "p",
        { className: "faint" },
        `Rules firing: ${count("firing")}, pending: ${count("pending")}, inactive: ${count("inactive")}.`,
      ),
      ...sorted.filter(({ rule }) => rule.alerts.length > 0).map(section),
      ...(quiet.length > 0 ? [quietRules(quiet)] : []),
    ];
  });
}

function section({ group, rule }) {
  const row = (alert) =>
    element(
      "tr",
      {},
      element("td", {}, seriesText(alert.labels)),
      element("td", { className: `short ${alert.state}` }, alert.state),
      element("td", { className: "short" }, timeText(Date.parse(alert.activeAt) / 1000)),
      element("td", { className: "value" }, String(Number(alert.value.replace("Inf", "Infinity")))),
      element("td", {}, ...annotations(alert.annotations)),
    );
  return element(
    "section",
    {},
    element("h2", {}, element("span", { className: rule.state }, rule.name), ` (${rule.alerts.length})`),
    element("p", { className: "faint" }, `${group.file} > ${group.name}: `, expressionLink(rule.query)),
    ...table(["Labels", "State", "Active since", "Value", "Annotations"], rule.alerts, row),
  );
}

function annotations(all) {
  return Object.entries(all ?? {}).map(([name, text]) => element("div", {}, `${name}: ${text}`));
}

function quietRules(quiet) {
  const row = ({ group, rule }) =>
    element(
      "tr",
      {},
      element("td", { className: rule.state }, rule.name),
      element("td", {}, group.name),
      element("td", {}, expressionLink(rule.query)),
    );
  return element("section", {}, element("h2", {}, "Quiet"), ...table(["Alert", "Group", "Expression"], quiet, row));
}
