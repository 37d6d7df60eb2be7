// The first things to see: what the engine does now, and which features are at work.

import { el, renderOnChange, setText } from "./dom.js";
import { byOrder, isOff, roleName } from "./features.js";
import { count, duration, percent, rate, ratio } from "./format.js";

const TILES = [
  ["Generation", "Tokens written per second, by all requests", ({ now }) => [
    rate(now.generation_tokens_per_s),
    "tok/s",
  ]],
  ["First token", "Median time from a request to its first token", ({ latency }) => [
    timeOf(latency.ttft_s, "p50"),
    `p95 ${timeOf(latency.ttft_s, "p95")}`,
  ]],
  ["Next token", "Median time between two tokens of an answer", ({ latency }) => [
    timeOf(latency.itl_s, "p50"),
    `p95 ${timeOf(latency.itl_s, "p95")}`,
  ]],
  ["Running", "Requests in the batch, and in the queue", ({ engine }) => [
    count(engine.num_running),
    `${count(engine.num_waiting)} waiting`,
  ]],
  ["KV cache", "Blocks that running requests hold, and those kept for their prefix", ({ engine }) => [
    percent(engine.kv_usage),
    `+ ${percent(cachedShare(engine))} kept`,
  ]],
  ["Prefix hits", "Prompt tokens that were in the cache already", ({ engine }) => [
    percent(ratio(engine.prefix_hits, engine.prefix_queries)),
    "of prompts",
  ]],
  ["Drafts", "Drafted tokens that the model confirmed", ({ engine }) => [
    percent(ratio(engine.spec_accepted_tokens, engine.spec_draft_tokens)),
    engine.spec_drafts ? `${perStep(engine)} tok/step` : "none yet",
  ]],
  ["Prompts", "Prompt tokens per second, cached ones included", ({ now }) => [
    rate(now.prompt_tokens_per_s),
    "tok/s",
  ]],
];

// Decided once and dull to look at: these are in the table only.
const LESS_TELLING = ["model", "loader", "structured_output", "role", "command", "routes"];

/** Tiles and feature chips; `onFeature(role)` shows the role in the table. */
export class Overview {
  constructor(onFeature) {
    this.onFeature = onFeature;
    this.tiles = TILES.map(tile);
    this.chips = el("ul", { class: "feature-chips", "aria-label": "Features" });
    const tiles = el("div", { class: "tiles" }, this.tiles.map(({ root }) => root));
    this.root = el("section", { id: "overview", "aria-label": "Now" }, tiles, this.chips);
  }

  update({ stats, features, history }) {
    const engine = stats?.engine ?? {};
    const view = { engine, latency: stats?.latency ?? {}, now: history.at(-1) ?? {} };
    for (const one of this.tiles) one.update(view);
    renderOnChange(this.chips, features, () => this.chipsOf(features));
  }

  chipsOf(features) {
    const roles = new Map();
    for (const feature of features) {
      const { role, on } = feature;
      if (LESS_TELLING.includes(role)) continue;
      if (!roles.has(role)) roles.set(role, []);
      if (on) roles.get(role).push(feature);
    }
    const chips = [...roles].sort(byOrder).map(([role, active]) => this.chip(role, active, features));
    return chips.sort((a, b) => b.on - a.on).map(({ root }) => root);
  }

  chip(role, active, features) {
    const on = active.length > 0;
    const offers = active.map(({ offer }) => offer).filter(Boolean).join(", ");
    const whole = features.find((one) => one.role === role && isOff(one) && !one.offer);
    const reason = on ? active[0].reason : (whole?.reason ?? "not selected");
    const text = on ? offers || "on" : "off";
    const button = el(
      "button",
      { type: "button", class: on ? "on" : "off", title: reason, click: () => this.onFeature(role) },
      el("span", {}, roleName(role)),
      el("b", {}, text),
    );
    return { on, root: el("li", {}, button) };
  }
}

function tile([name, help, read]) {
  const value = el("b");
  const note = el("small");
  const root = el("div", { class: "tile", title: help }, el("span", {}, name), value, note);
  const update = (view) => {
    const [main, more] = read(view);
    setText(value, main);
    setText(note, more);
    note.title = more;
  };
  update({ engine: {}, latency: {}, now: {} });
  return { root, update };
}

// Percentiles of nothing are zeros, which would look like a feat.
function timeOf(found, name) {
  return duration(found?.n ? found[name] : null);
}

function cachedShare({ cached_blocks: cached, num_blocks: total }) {
  return cached ? ratio(deviceBlocks(cached), total) : null;
}

function deviceBlocks(blocks) {
  return Object.entries(blocks)
    .filter(([key]) => key.startsWith("device/"))
    .reduce((sum, [, value]) => sum + value, 0);
}

function perStep({ spec_drafts: drafts, spec_accepted_tokens: accepted }) {
  return (1 + accepted / drafts).toFixed(2);
}
