// How fast: latencies, the prefix cache's hits, and what speculation gains.

import { el, renderOnChange, setShare } from "./dom.js";
import { count, duration, percent, ratio } from "./format.js";

const LATENCIES = [
  ["ttft_s", "First token", "Time from the request to its first token"],
  ["itl_s", "Between tokens", "Time between two tokens of an answer"],
  ["e2e_s", "Whole request", "Time from the request to its last token"],
];

/** Median and 95th percentile of recent requests. */
export class LatencyCard {
  constructor() {
    this.body = el("tbody");
    this.step = el("p", { class: "reason" });
    const names = ["", "p50", "p95", "n"].map((name) => el("th", { scope: "col" }, name));
    const table = el("table", { class: "figures" }, el("thead", {}, el("tr", {}, names)), this.body);
    this.root = el("section", { class: "card", id: "latency" });
    this.root.append(el("h2", {}, "Latency"), table, this.step);
  }

  update(latency, engine) {
    renderOnChange(this.body, latency, () => LATENCIES.map((row) => latencyRow(row, latency)));
    const { num_steps: steps, step_seconds: total, step_host_seconds: host } = engine;
    renderOnChange(this.step, [steps, total, host], () => stepText(steps, total, host));
  }
}

function latencyRow([key, name, help], latency) {
  const { p50, p95, n } = latency[key] ?? {};
  const label = el("th", { scope: "row", title: help }, name);
  return el("tr", {}, label, cell(duration(p50)), cell(duration(p95)), cell(count(n)));
}

function cell(text) {
  return el("td", {}, text);
}

function stepText(steps, total, host) {
  if (!steps) return "The engine has run no step yet.";
  const mean = duration(total / steps);
  return `${count(steps)} engine steps, ${mean} each; ${percent(ratio(host, total))} of it on the host.`;
}

/** What did not have to be computed, or took fewer steps. */
export class GainCard {
  constructor() {
    this.prefix = el("div");
    this.speculation = el("div");
    this.root = el("section", { class: "card", id: "gains" });
    this.root.append(el("h2", {}, "Prefix cache"), this.prefix);
    this.root.append(el("h2", {}, "Speculation"), this.speculation);
  }

  update(engine, features) {
    const { prefix_queries: queries, prefix_hits: hits } = engine;
    renderOnChange(this.prefix, [queries, hits], () => prefixView(queries, hits));
    const reasons = features.filter(({ role }) => role === "speculator");
    const counters = Object.entries(engine).filter(([key]) => key.startsWith("spec_"));
    renderOnChange(this.speculation, [counters, reasons], () => speculationView(engine, reasons));
  }
}

function prefixView(queries, hits) {
  if (!queries) return el("p", { class: "muted" }, "No prompt has been looked up yet.");
  const share = ratio(hits, queries);
  const text = `${percent(share)} hit rate`;
  return [
    el("div", { class: "split" }, el("b", {}, text), el("span", {}, "since start")),
    gauge([share], text),
    el("p", { class: "reason" }, `${count(hits)} of ${count(queries)} prompt tokens were cached.`),
  ];
}

function speculationView(engine, features) {
  const { spec_drafts: drafts, spec_draft_tokens: drafted } = engine;
  const accepted = engine.spec_accepted_tokens;
  if (!drafts) return idleView(features);
  const share = ratio(accepted, drafted);
  const text = `${percent(share)} of drafts accepted`;
  // A verification always yields one token of its own, besides the accepted drafts.
  const perStep = (1 + accepted / drafts).toFixed(2);
  return [
    el("div", { class: "split" }, el("b", {}, `${perStep} tokens per step`), el("span", {}, text)),
    gauge([share], text),
    el("p", { class: "reason" }, `${count(accepted)} of ${count(drafted)} drafted tokens accepted in ${count(drafts)} verifications.`),
    methods(engine.spec_method_tokens ?? {}, accepted),
  ];
}

function idleView(features) {
  const on = features.filter((feature) => feature.on).map(({ offer }) => offer);
  if (on.length) return el("p", { class: "muted" }, `${on.join(", ")} on; nothing drafted yet.`);
  const whole = features.filter(({ offer }) => !offer); // about speculation as a whole
  const why = (whole.length ? whole : features).map(reasonOf).join("; ");
  return el("p", { class: "muted" }, why ? `Off: ${why}.` : "Off.");
}

function reasonOf({ offer, reason }) {
  return offer ? `${offer}: ${reason}` : reason;
}

function methods(tokens, total) {
  const rows = Object.entries(tokens).map(([name, value]) => {
    const head = el("div", { class: "split" }, el("code", {}, name), el("span", {}, count(value)));
    return el("div", { class: "tier" }, head, gauge([ratio(value, total)], `${name}: ${value}`));
  });
  return el("div", { class: "tiers" }, el("h3", {}, "Accepted tokens by method"), rows);
}

function gauge(shares, label) {
  const bar = el("div", { class: "bar", role: "img", "aria-label": label });
  shares.forEach((share, tone) => {
    const part = el("i", { class: `tone-${tone}` });
    setShare(part, share);
    bar.append(part);
  });
  return bar;
}
