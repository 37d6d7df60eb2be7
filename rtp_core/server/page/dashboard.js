// The engine panel: what happens now, charts and cards, fed by the connection each second.

import { CacheCard } from "./cache.js";
import { Chart, ChartGroup } from "./charts.js";
import { el, setText } from "./dom.js";
import { facts } from "./facts.js";
import { FeatureTable } from "./features.js";
import { count, rate } from "./format.js";
import { LatencyCard } from "./latency.js";
import { Overview } from "./overview.js";
import { PluginList } from "./plugins.js";
import { RequestTable } from "./requests.js";
import { SpeculationCard } from "./speculation.js";
import { recall, remember } from "./storage.js";

const SPANS = [
  [60, "1 min"],
  [300, "5 min"],
  [600, "10 min"],
];
const SECTIONS = [
  ["overview", "Now"],
  ["requests", "Requests"],
  ["cache", "Cache"],
  ["speculation", "Drafts"],
  ["latency", "Latency"],
  ["features", "Features"],
];

/** Fills the element `root` and keeps it current through `update`. */
export class Dashboard {
  constructor(root) {
    this.features = new FeatureTable();
    this.overview = new Overview((role) => this.features.show(role));
    this.load = loadCharts();
    this.cache = new CacheCard();
    this.latency = new LatencyCard();
    this.speculation = new SpeculationCard();
    this.requests = new RequestTable();
    this.plugins = new PluginList();
    this.facts = el("p", { class: "facts" });
    const cards = [this.cache, this.latency, this.speculation];
    const charts = [...this.load, ...cards.flatMap((card) => card.charts)];
    this.group = new ChartGroup(charts, recall("span", SPANS[0][0]));
    this.root = root;
    this.compose(root);
  }

  /** Replace the notice that there is nothing to see yet. */
  show() {
    this.root.hidden = false;
    document.getElementById("no-numbers").hidden = true;
  }

  compose(root) {
    const load = el("section", { class: "card", id: "load", "aria-label": "Load" });
    const charts = el("div", { class: "chart-pair" }, this.load.map((one) => one.root));
    load.append(el("div", { class: "split" }, el("h2", {}, "Load"), this.spanPicker()), charts);
    const left = el("div", { class: "stack" }, this.cache.root);
    const right = el("div", { class: "stack" }, this.speculation.root, this.latency.root);
    root.append(
      this.navigation(),
      this.overview.root,
      load,
      this.requests.root,
      el("div", { class: "pair" }, left, right),
      this.features.root,
      this.plugins.root,
      this.facts,
    );
  }

  // Buttons, not links: an address with a fragment would be a step back in the browser.
  navigation() {
    const buttons = SECTIONS.map(([id, name]) => {
      const show = () => document.getElementById(id).scrollIntoView();
      return el("button", { type: "button", class: "quiet small", click: show }, name);
    });
    return el("nav", { class: "jump", "aria-label": "Parts of the panel" }, buttons);
  }

  spanPicker() {
    const buttons = SPANS.map(([seconds, name]) => {
      const pressed = String(seconds === this.group.span);
      const button = el("button", { type: "button", "aria-pressed": pressed }, name);
      button.addEventListener("click", () => {
        for (const one of buttons) one.setAttribute("aria-pressed", String(one === button));
        remember("span", seconds);
        this.group.setSpan(seconds);
      });
      return button;
    });
    return el("div", { class: "segments", role: "group", "aria-label": "Time shown" }, buttons);
  }

  /** Show a report of the connection. */
  update({ stats, plugins, effective }) {
    const engine = stats?.engine ?? {};
    const features = effective?.features ?? [];
    const history = stats?.history ?? [];
    const memory = effective?.memory ?? null;
    this.overview.update({ stats, features, history });
    this.cache.update(memory, engine, history);
    this.latency.update(stats?.latency ?? {}, engine);
    this.speculation.update(stats, features);
    this.requests.update(stats?.requests ?? []);
    this.features.update(features, memory);
    this.plugins.update(plugins, engine.plugin_errors ?? {});
    this.group.update(history);
    setText(this.facts, facts(stats, effective));
  }
}

function loadCharts() {
  return [
    new Chart({
      title: "Generation",
      series: [{ label: "tok/s", read: (one) => one.generation_tokens_per_s }],
      format: rate,
    }),
    new Chart({
      title: "Requests",
      series: [
        { label: "running", read: (one) => one.running },
        { label: "waiting", read: (one) => one.waiting },
      ],
      format: count,
    }),
  ];
}
