// The engine panel: tiles, charts and cards, fed by the connection each second.

import { LineChart } from "./charts.js";
import { el, setText } from "./dom.js";
import { FeatureList, PluginList } from "./features.js";
import { bytes, count, duration, percent, rate, ratio } from "./format.js";
import { MemoryCard } from "./memory.js";
import { GainCard, LatencyCard } from "./performance.js";
import { RequestTable } from "./requests.js";
import { recall, remember } from "./storage.js";

const SPANS = [
  [60, "1 min"],
  [300, "5 min"],
  [600, "10 min"],
];

const TILES = [
  ["Generation", (now) => rate(now.generation_tokens_per_s), "tok/s"],
  ["Prompts", (now) => rate(now.prompt_tokens_per_s), "tok/s"],
  ["Running", (now, engine) => count(engine.num_running), (engine) => `${count(engine.num_waiting)} waiting`],
  ["KV cache", (now, engine) => percent(engine.kv_usage), "in use"],
  ["Prefix hits", (now, engine) => percent(ratio(engine.prefix_hits, engine.prefix_queries)), "of tokens"],
  ["Drafts", (now, engine) => percent(ratio(engine.spec_accepted_tokens, engine.spec_draft_tokens)), "accepted"],
];

/** Fills the element `root` and keeps it current through `update`. */
export class Dashboard {
  constructor(root) {
    this.span = recall("span", SPANS[1][0]);
    this.tiles = TILES.map(tile);
    this.charts = [
      new LineChart({
        title: "Generation",
        series: [{ key: "generation_tokens_per_s", label: "tokens/s" }],
        format: rate,
      }),
      new LineChart({
        title: "Requests",
        series: [
          { key: "running", label: "running" },
          { key: "waiting", label: "waiting" },
        ],
        format: count,
      }),
      new LineChart({
        title: "KV cache",
        series: [{ key: "kv_usage", label: "in use" }],
        format: percent,
        top: 1,
      }),
    ];
    this.features = new FeatureList();
    this.memory = new MemoryCard();
    this.latency = new LatencyCard();
    this.gains = new GainCard();
    this.requests = new RequestTable();
    this.plugins = new PluginList();
    this.facts = el("p", { class: "facts" });
    this.compose(root);
  }

  compose(root) {
    const tiles = el("section", { class: "tiles", "aria-label": "Now" });
    tiles.append(...this.tiles.map((one) => one.root));
    const charts = el("section", { class: "card", id: "charts" });
    charts.append(this.spanPicker(), el("div", { class: "chart-row" }, this.charts.map((one) => one.root)));
    const cards = [this.memory, this.latency, this.gains, this.plugins].map((one) => one.root);
    const side = el("div", { class: "stack" }, cards);
    const pair = el("div", { class: "pair" }, this.features.root, side);
    root.append(tiles, charts, pair, this.requests.root, this.facts);
  }

  spanPicker() {
    const buttons = SPANS.map(([seconds, name]) => {
      const button = el("button", { type: "button" }, name);
      button.addEventListener("click", () => this.setSpan(seconds, buttons));
      return button;
    });
    this.setSpan(this.span, buttons);
    const group = el("div", { class: "segments", role: "group", "aria-label": "Time shown" }, buttons);
    return el("div", { class: "split" }, el("h2", {}, "Load"), group);
  }

  setSpan(span, buttons) {
    this.span = span;
    remember("span", span);
    buttons.forEach((button, place) => {
      button.setAttribute("aria-pressed", String(SPANS[place][0] === span));
    });
    this.drawCharts();
  }

  /** Show a report of the connection. */
  update({ stats, plugins, effective }) {
    const engine = stats?.engine ?? {};
    const features = effective?.features ?? [];
    this.history = stats?.history ?? [];
    const now = this.history.at(-1) ?? {};
    for (const one of this.tiles) one.update(now, engine);
    this.drawCharts();
    this.features.update(features);
    this.memory.update(effective?.memory ?? null, engine);
    this.latency.update(stats?.latency ?? {}, engine);
    this.gains.update(engine, features);
    this.requests.update(stats?.requests ?? []);
    this.plugins.update(plugins, engine.plugin_errors ?? {});
    setText(this.facts, facts(stats, effective));
  }

  // The newest sample is "now": the server's clock may differ from this machine's.
  drawCharts() {
    const now = this.history?.at(-1)?.t_unix_s ?? Date.now() / 1000;
    for (const chart of this.charts) chart.update(this.history ?? [], this.span, now);
  }
}

function tile([name, read, unit]) {
  const value = el("b");
  const note = el("small");
  const root = el("div", { class: "tile" }, el("span", {}, name), value, note);
  const update = (now, engine) => {
    setText(value, read(now, engine));
    setText(note, typeof unit === "string" ? unit : unit(engine));
  };
  update({}, {});
  return { root, update };
}

function facts(stats, effective) {
  if (!stats) return "";
  const { engine = {}, model = {} } = stats;
  const { load_bytes: size, load_seconds: seconds, preemptions } = engine;
  const load = seconds ? `weights: ${bytes(size)} in ${duration(seconds)}` : "";
  return [
    `rtp ${stats.version ?? ""}`,
    effective?.model?.path,
    model.architecture,
    model.dtype,
    model.max_model_len ? `context ${count(model.max_model_len)}` : "",
    stats.uptime_s ? `up ${duration(stats.uptime_s)}` : "",
    load,
    startText(stats.start),
    preemptions ? `${count(preemptions)} preemptions` : "",
  ]
    .filter(Boolean)
    .join(" · ");
}

// The phases worth naming: those that took a tenth of the start or more.
function startText(start) {
  if (!start) return "";
  const long = start.phases.filter(({ seconds }) => seconds >= start.total_s / 10);
  const parts = long.map(({ name, seconds }) => `${name} ${duration(seconds)}`);
  return `ready in ${duration(start.total_s)} (${parts.join(", ")})`;
}
