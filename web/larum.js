// The pages: which one is shown, and what they share. Everything that comes from the server is set as
// text, never as markup.

import { alerts } from "./alerts.js";
import { expression } from "./expression.js";
import { rules } from "./rules.js";

const pages = { graph: expression, query: expression, alerts, rules };

const name = location.pathname.split("/").pop();
for (const link of document.querySelectorAll("nav a")) {
  if (pages[link.getAttribute("href")] === pages[name]) link.setAttribute("aria-current", "page");
}
pages[name]?.(document.getElementById("page"));
