// How long clients wait: percentiles of each second as charts, of recent requests as a table.

import { Chart } from "./charts.js";
import { el, renderOnChange } from "./dom.js";
import { count, duration, percent, ratio } from "./format.js";

const RANKS = ["p50", "p95", "p99"];
const LATENCIES = [
  ["ttft_s", "First token", "Time from the request to its first token (TTFT)"],
  ["itl_s", "Between tokens", "Time between two tokens of an answer (ITL)"],
  ["e2e_s", "Whole request", "Time from the request to its last token"],
];

/** Card of time to first token, time between tokens and time of whole requests. */
export class LatencyCard {
  constructor() {
    this.charts = [chart("First token", "ttft_s"), chart("Between tokens", "itl_s")];
    this.body = el("tbody");
    this.step = el("p", { class: "reason" });
    const names = ["", ...RANKS, "samples"].map((name) => el("th", { scope: "col" }, name));
    const table = el("table", { class: "figures" }, el("thead", {}, el("tr", {}, names)), this.body);
    this.root = el("section", { class: "card", id: "latency", "aria-label": "Latency" });
    const charts = el("div", { class: "chart-pair" }, this.charts.map(({ root }) => root));
    this.root.append(el("h2", {}, "Latency"), charts, table, this.step);
  }

  update(latency, engine) {
    renderOnChange(this.body, latency, () => LATENCIES.map((row) => latencyRow(row, latency)));
    const { num_steps: steps, step_seconds: total, step_host_seconds: host } = engine;
    renderOnChange(this.step, [steps, total, host], () => stepText(steps, total, host));
  }
}

function chart(title, key) {
  const series = RANKS.map((rank, tone) => ({ label: rank, tone, read: (one) => one[key]?.[rank] }));
  return new Chart({ title, series, format: duration, filled: false });
}

// Percentiles of nothing are zeros, which would look like a feat.
function latencyRow([key, name, help], latency) {
  const { n = 0, ...ranks } = latency[key] ?? {};
  const label = el("th", { scope: "row", title: help }, name);
  const cells = RANKS.map((rank) => el("td", {}, duration(n ? ranks[rank] : null)));
  return el("tr", {}, label, cells, el("td", {}, count(n)));
}

function stepText(steps, total, host) {
  if (!steps) return "The engine has run no step yet.";
  const mean = duration(total / steps);
  return `${count(steps)} engine steps, ${mean} each; ${percent(ratio(host, total))} of it on the host.`;
}
