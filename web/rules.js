// The page of rules: every group, how its rules are, and how long they take.

import { ask, element, expressionLink, refreshed, table } from "./common.js";

/** Shows groups of rules. */
export function rules(page) {
  document.title = "Rules - Larum";
  refreshed(page, async () => {
    const { data } = await ask("rules");
    if (data.groups.length === 0) {
      return [element("p", {}, "No rules are loaded: see rule_files in the configuration.")];
    }
    return data.groups.map(section);
  });
}

function section(group) {
  const row = (rule) =>
    element(
      "tr",
      {},
      element("td", {}, rule.name),
      element("td", {}, expressionLink(rule.query)),
      element("td", { className: rule.health }, rule.health, ...problems(rule)),
      element("td", { className: "value" }, milliseconds(rule.evaluationTime)),
    );
  const taken = `every ${group.interval} s, last at ${group.lastEvaluation}, in ${milliseconds(group.evaluationTime)}`;
  return element(
    "section",
    {},
    element("h2", {}, group.name),
    element("p", { className: "faint" }, `${group.file}: ${taken}`),
    ...table(["Rule", "Expression", "Health", "Took"], group.rules, row),
  );
}

function problems(rule) {
  const texts = [rule.lastError, ...(rule.warnings ?? [])].filter(Boolean);
  return texts.map((text) => element("div", {}, text));
}

function milliseconds(seconds) {
  return `${(seconds * 1000).toFixed(1)} ms`;
}
