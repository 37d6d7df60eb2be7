// Which plugins are installed, what they provide, and what is wrong with them.

import { el, renderOnChange } from "./dom.js";

/** Installed plugins, the broken ones with their defect, and errors counted at run time. */
export class PluginList {
  constructor() {
    this.list = el("ul", { class: "plugins" });
    this.root = el("section", { class: "card", id: "plugins" });
    this.root.append(el("h2", {}, "Installed plugins"), this.list);
  }

  update(plugins, errors) {
    renderOnChange(this.list, { plugins, errors }, () => {
      if (!plugins.length) return el("li", { class: "muted" }, "No plugins are installed.");
      return plugins.map((one) => plugin(one, errors[one.name] ?? 0));
    });
  }
}

function plugin(data, errors) {
  const { name, version, api, summary, broken } = data;
  const head = el("div", { class: "feature-name" });
  head.append(el("code", {}, name), el("span", { class: "from" }, `${version ?? ""} · API ${api ?? "–"}`));
  const text = el("div", {}, head);
  if (summary) text.append(el("p", { class: "reason" }, summary));
  if (broken) text.append(el("p", { class: "bad" }, defect(broken)));
  if (errors) text.append(el("p", { class: "bad" }, `${errors} errors while running; see the log.`));
  text.append(chips(data));
  return el("li", {}, stateOf(data), text);
}

function stateOf({ broken, selected }) {
  if (broken) return el("span", { class: "state broken" }, "broken");
  return el("span", { class: `state ${selected ? "on" : "off"}` }, selected ? "in use" : "unused");
}

function defect(broken) {
  return typeof broken === "string" ? broken : "This plugin cannot be loaded; see rtp doctor.";
}

function chips({ provides = [], needs = [], conflicts = [] }) {
  const group = (kind, names) =>
    names.map((name) => el("li", { class: `chip ${kind}` }, kind === "provides" ? "" : `${kind} `, name));
  const all = [group("provides", provides), group("needs", needs), group("conflicts", conflicts)];
  return el("ul", { class: "chips" }, all.flat());
}
