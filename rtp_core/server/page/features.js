// Which part fills each role, why, what it costs, and why the others do not.

import { el, renderOnChange } from "./dom.js";
import { bytes } from "./format.js";

const ROLES = {
  model: "Model",
  weights: "Weights",
  quantization: "Quantization",
  loader: "Weight loader",
  reading: "Reading",
  attention: "Attention",
  kernels: "Kernels",
  kv_store: "KV store",
  kv_format: "KV format",
  kv_tier: "KV tier",
  prefix_caching: "Prefix caching",
  speculator: "Speculation",
  scheduler: "Scheduling",
  structured_output: "Structured output",
  encoder: "Images",
  transport: "KV transport",
  router: "Router",
  role: "Serving role",
  command: "Command",
  routes: "HTTP routes",
  plugin: "Plugin",
};
const COLUMNS = ["Role", "In use", "Why", "Plugin", "Memory"];

/** A role as people call it; one that this page does not know keeps its name. */
export function roleName(role) {
  return ROLES[role] ?? role.replaceAll("_", " ");
}

export function isOff({ on }) {
  return !on;
}

/** One row a role: what fills it and why, then what else could and why it does not. */
export class FeatureTable {
  constructor() {
    this.body = el("tbody", { role: "rowgroup" });
    const heads = COLUMNS.map((name) => el("th", { scope: "col", role: "columnheader" }, name));
    // The roles stay a table's when a narrow panel lays the rows out as blocks.
    const table = el("table", { class: "features", role: "table" });
    const head = el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads));
    table.append(head, this.body);
    this.none = el("p", { class: "muted" }, "Known once the engine is ready.");
    this.root = el("section", { class: "card", id: "features", "aria-label": "Features" });
    this.root.append(el("h2", {}, "Features: what is on, and why"), this.none, table);
  }

  update(features, memory) {
    this.none.hidden = features.length > 0;
    renderOnChange(this.body, { features, memory }, () => {
      const groups = [...groupBy(features, ({ role }) => role)].sort(byOrder);
      const rows = groups.map(([role, found]) => rowOf(role, found, memory));
      return [...rows.filter(({ on }) => on), ...rows.filter(({ on }) => !on)].map(
        ({ root }) => root,
      );
    });
  }

  /** Bring a role into view and mark it for a moment. */
  show(role) {
    const row = [...this.body.children].find((one) => one.dataset.role === role);
    if (!row) return;
    row.scrollIntoView({ block: "center" });
    row.focus({ preventScroll: true });
  }
}

/** Orders entries [role, …] as the table does. */
export function byOrder([one], [other]) {
  const order = Object.keys(ROLES);
  const place = (role) => (order.includes(role) ? order.indexOf(role) : order.length);
  return place(one) - place(other);
}

function rowOf(role, features, memory) {
  const active = features.filter(({ on }) => on);
  const off = features.filter(isOff);
  const whole = off.filter(({ offer }) => !offer); // about the role, not one offer
  const others = off.filter(({ offer }) => offer);
  const told = active.length ? active : whole;
  const on = active.length > 0;
  const row = el("tr", { role: "row", tabindex: -1, "data-role": role, class: on ? "on" : "off" });
  row.append(
    cell("role", el("i", { class: "light" }), roleName(role)),
    cell("offer", on ? offers(active) : el("span", { class: "state off" }, "off")),
    cell("why", reasons(told), othersOf(others, on)),
    cell("plugin", told.map(origin)),
    cell("memory", on ? sizeOf(role, memory) : ""),
  );
  return { on, root: row };
}

function cell(name, ...children) {
  return el("td", { role: "cell", "data-column": name }, ...children);
}

function offers(active) {
  const names = active.map(({ offer }) => offer).filter(Boolean);
  if (!names.length) return el("span", { class: "state on" }, "on");
  return names.flatMap((name) => [el("code", {}, name), " "]);
}

function reasons(features) {
  const texts = [...new Set(features.map(({ reason }) => reason || "no reason given"))];
  return texts.map((text) => el("p", { class: "reason" }, text));
}

// Of a role that is off they are the way to switch it on; else they are folded away.
function othersOf(features, on) {
  if (!features.length) return "";
  const list = alternatives(features);
  if (!on) return list;
  const summary = el("summary", {}, `${features.length} other${features.length > 1 ? "s" : ""}`);
  return el("details", {}, summary, list);
}

// Offers that are off for the same reason share a line.
function alternatives(features) {
  const same = groupBy(features, ({ reason, plugin }) => JSON.stringify([reason, plugin]));
  const rows = [...same.values()].map((group) => {
    const names = group.flatMap(({ offer }) => [el("code", {}, offer), " "]);
    return el("li", {}, names, group[0].reason, " ", origin(group[0]));
  });
  return el("ul", { class: "alternatives" }, rows);
}

function origin({ plugin, version }) {
  return plugin ? el("span", { class: "from" }, [plugin, version].filter(Boolean).join(" ")) : "";
}

function sizeOf(role, memory) {
  if (role === "kv_store" && memory?.kv_bytes) return bytes(memory.kv_bytes);
  return role === "model" && memory?.weights_bytes ? bytes(memory.weights_bytes) : "";
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
