// Which part fills each role and why, and which plugins are installed.

import { el, renderOnChange } from "./dom.js";

const ROLES = {
  model: "Model",
  attention: "Attention",
  loader: "Weight loader",
  scheduler: "Scheduling policy",
  kv_store: "KV store",
  kv_tier: "KV tier",
  kv_format: "KV format",
  speculator: "Speculation",
  encoder: "Media encoder",
  transport: "KV transport",
  router: "Router",
  role: "Serving role",
  command: "Command",
  routes: "HTTP routes",
  weights: "Weights",
  prefix_caching: "Prefix caching",
  plugin: "Plugin",
};

/** Effective features, those that are on first, each with the reason. */
export class FeatureList {
  constructor() {
    this.list = el("ul", { class: "features" });
    this.root = el("section", { class: "card", id: "features" });
    this.root.append(el("h2", {}, "Effective features"), this.list);
  }

  update(features) {
    renderOnChange(this.list, features, () => {
      if (!features.length) return el("li", { class: "muted" }, "Known once the engine is ready.");
      return [...features].sort((one, other) => Number(other.on) - Number(one.on)).map(feature);
    });
  }
}

function feature({ role, offer, plugin, version, on, reason }) {
  const state = el("span", { class: `state ${on ? "on" : "off"}` }, on ? "on" : "off");
  const from = [plugin, version].filter(Boolean).join(" ");
  const title = el("div", { class: "feature-name" });
  title.append(el("span", { class: "role" }, ROLES[role] ?? role));
  if (offer) title.append(el("code", {}, offer)); // a role nobody fills names no offer
  const why = el("p", { class: "reason split" }, el("span", {}, reason || "no reason given"));
  if (from) why.append(el("span", { class: "from" }, from));
  const text = el("div", {}, title, why);
  return el("li", {}, state, text);
}

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
