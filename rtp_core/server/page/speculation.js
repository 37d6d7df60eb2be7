// What speculation gains: drafts, how many tokens of them the model confirmed, by method.

import { stack } from "./bars.js";
import { Chart } from "./charts.js";
import { el, renderOnChange } from "./dom.js";
import { count, percent, ratio } from "./format.js";
import { isRunning } from "./records.js";

const COLUMNS = ["Method", "Drafts", "Drafted", "Accepted", "Rate", "Tokens/step"];

/** Card of speculation as a whole, by method, and of what running requests use now. */
export class SpeculationCard {
  constructor() {
    this.chart = new Chart({
      title: "Accepted",
      series: [{ label: "of drafted tokens", read: (one) => one.spec_acceptance, tone: 2 }],
      format: percent,
      top: 1,
    });
    this.charts = [this.chart];
    this.whole = el("div");
    this.now = el("p", { class: "reason" });
    this.root = el("section", { class: "card", id: "speculation", "aria-label": "Speculation" });
    this.root.append(el("h2", {}, "Speculation"), this.whole, this.chart.root, this.now);
  }

  update(stats, features) {
    const engine = stats?.engine ?? {};
    const methods = methodsOf(stats ?? {});
    const reasons = features.filter(({ role }) => role === "speculator");
    const counters = Object.entries(engine).filter(([key]) => key.startsWith("spec_"));
    renderOnChange(this.whole, [counters, methods, reasons], () =>
      engine.spec_drafts ? working(engine, methods) : idle(reasons),
    );
    this.chart.root.hidden = !engine.spec_drafts;
    const running = (stats?.requests ?? []).filter(isRunning);
    renderOnChange(this.now, running.map(({ speculation }) => speculation), () => nowText(running));
  }
}

/** {name: {drafts, draft_tokens, accepted_tokens}}; what a server does not count is missing. */
function methodsOf({ speculation, engine = {} }) {
  if (speculation?.methods) return speculation.methods;
  const accepted = Object.entries(engine.spec_method_tokens ?? {});
  if (accepted.length !== 1) {
    return Object.fromEntries(accepted.map(([name, tokens]) => [name, { accepted_tokens: tokens }]));
  }
  const { spec_drafts: drafts, spec_draft_tokens: drafted } = engine; // all of them are its own
  const counted = { drafts, draft_tokens: drafted, accepted_tokens: accepted[0][1] };
  return { [accepted[0][0]]: counted };
}

function working(engine, methods) {
  const { spec_drafts: drafts, spec_draft_tokens: drafted, generation_tokens: made } = engine;
  const accepted = engine.spec_accepted_tokens;
  const text = `${percent(ratio(accepted, drafted))} of drafted tokens accepted`;
  // A verification always yields one token of its own, besides the accepted drafts.
  const perStep = (1 + accepted / drafts).toFixed(2);
  // Without drafts each of these tokens would have been a step; verifying costs a little more.
  const gain = made > accepted ? (made / (made - accepted)).toFixed(2) : null;
  return [
    el("div", { class: "split" }, el("b", {}, `${perStep} tokens per step`), el("span", {}, text)),
    stack([{ value: accepted, tone: 2 }], drafted, text),
    gain ? el("p", { class: "reason" }, gainText(gain, accepted, made)) : "",
    table(methods),
  ];
}

function gainText(gain, accepted, made) {
  return `Estimated gain: up to ×${gain} over all tokens. Drafts gave ${count(accepted)} of ${count(made)}, each a step saved.`;
}

function table(methods) {
  const heads = COLUMNS.map((name) => el("th", { scope: "col" }, name));
  const rows = Object.entries(methods)
    .sort(([, a], [, b]) => b.accepted_tokens - a.accepted_tokens)
    .map(([name, found]) => methodRow(name, found));
  const whole = el("table", { class: "figures" }, el("thead", {}, el("tr", {}, heads)));
  whole.append(el("tbody", {}, rows));
  return el("div", { class: "table-scroll", tabindex: 0, role: "region", "aria-label": "By method" }, whole);
}

function methodRow(name, { drafts, draft_tokens: drafted, accepted_tokens: accepted }) {
  const gain = drafts ? (1 + accepted / drafts).toFixed(2) : "–";
  const cells = [count(drafts), count(drafted), count(accepted), percent(ratio(accepted, drafted)), gain];
  const label = el("th", { scope: "row" }, el("code", {}, name));
  return el("tr", {}, label, cells.map((text) => el("td", {}, text)));
}

function nowText(running) {
  const told = running.filter(({ speculation }) => speculation?.method);
  if (!told.length) return "";
  const counts = new Map();
  for (const { speculation } of told) {
    counts.set(speculation.method, (counts.get(speculation.method) ?? 0) + 1);
  }
  const parts = [...counts].map(([method, number]) => `${method} for ${count(number)}`);
  return `Running requests: ${parts.join(", ")}.`;
}

/** "ngram, 4 ahead, 62 %" of {method, k, acceptance}. */
export function shortly({ method, k, acceptance }) {
  const ahead = k == null ? "" : `, ${count(k)} ahead`;
  const rate = acceptance == null ? "" : `, ${percent(acceptance)}`;
  return `${method}${ahead}${rate}`;
}

function idle(features) {
  const on = features.filter((feature) => feature.on).map(({ offer }) => offer);
  if (on.length) return el("p", { class: "muted" }, `${on.join(", ")} on; nothing drafted yet.`);
  const whole = features.filter(({ offer }) => !offer); // about speculation as a whole
  const why = (whole.length ? whole : features).map(reasonOf).join("; ");
  return el("p", { class: "muted" }, why ? `Off: ${why}.` : "Off.");
}

function reasonOf({ offer, reason }) {
  return offer ? `${offer}: ${reason}` : reason;
}
