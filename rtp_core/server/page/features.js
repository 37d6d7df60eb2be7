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

/** One row a role: what fills it and why, then what else could and why it does not. */
export class FeatureList {
  constructor() {
    this.list = el("ul", { class: "features" });
    this.root = el("section", { class: "card", id: "features" });
    this.root.append(el("h2", {}, "Effective features"), this.list);
  }

  update(features) {
    renderOnChange(this.list, features, () => {
      if (!features.length) return el("li", { class: "muted" }, "Known once the engine is ready.");
      const roles = [...groupBy(features, ({ role }) => role)].map(roleRow);
      return [...roles.filter(({ on }) => on), ...roles.filter(({ on }) => !on)].map(
        ({ root }) => root,
      );
    });
  }
}

function roleRow([role, features]) {
  const active = features.filter(({ on }) => on);
  const body = el("div");
  for (const feature of active) body.append(...lines(role, feature));
  const off = features.filter(({ on }) => !on);
  // Without an offer the line is about the role as a whole.
  const whole = off.filter(({ offer }) => !offer);
  for (const feature of whole) body.append(...lines(role, feature));
  if (!active.length && !whole.length) body.append(el("div", { class: "role" }, nameOf(role)));
  body.append(alternatives(off.filter(({ offer }) => offer)));
  const on = active.length > 0;
  const state = el("span", { class: `state ${on ? "on" : "off"}` }, on ? "on" : "off");
  return { on, root: el("li", {}, state, body) };
}

function lines(role, { offer, plugin, version, reason }) {
  const title = el("div", { class: "feature-name" });
  title.append(el("span", { class: "role" }, nameOf(role)), offer ? el("code", {}, offer) : "");
  const why = el("p", { class: "reason split" }, el("span", {}, reason || "no reason given"));
  why.append(origin(plugin, version));
  return [title, why];
}

// Offers that are off for the same reason share a line.
function alternatives(features) {
  const same = groupBy(features, ({ reason, plugin }) => JSON.stringify([reason, plugin]));
  const rows = [...same.values()].map((group) => {
    const [{ reason, plugin, version }] = group;
    const names = group.flatMap(({ offer }) => [el("code", {}, offer), " "]);
    return el("li", { class: "split" }, el("span", {}, names, reason), origin(plugin, version));
  });
  return el("ul", { class: "alternatives" }, rows);
}

function origin(plugin, version) {
  return plugin ? el("span", { class: "from" }, [plugin, version].filter(Boolean).join(" ")) : "";
}

function nameOf(role) {
  return ROLES[role] ?? role;
}

function groupBy(items, keyOf) {
  const groups = new Map();
  for (const item of items) {
    const key = keyOf(item);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(item);
  }
  return groups;
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
