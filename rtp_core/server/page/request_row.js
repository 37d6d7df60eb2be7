// One request: its numbers, a timeline in true proportions, and details on demand.

import { el, renderOnChange, setShare, setText } from "./dom.js";
import { clock, count, duration, rate } from "./format.js";
import { isRunning } from "./records.js";
import { shortly } from "./speculation.js";

const LEFT = 499; // the client stopped the answer, which is no failure
const PHASES = ["waiting", "queued", "prefill", "decode"];
const CELLS = ["start", "request", "tokens", "first", "total", "timeline", "end"];

/** Rows of a request, in a table body of their own; `update` shows it as it is now. */
export class RequestRow {
  constructor() {
    this.toggle = el("button", { type: "button", class: "toggle", tabindex: -1 });
    this.toggle.setAttribute("aria-expanded", "false");
    this.toggle.addEventListener("click", () => this.open(this.details.hidden));
    this.parts = PHASES.map((name) => el("i", { class: name }));
    this.bar = el("div", { class: "timeline", role: "img" }, this.parts);
    const cells = CELLS.map((name) => el("td", { role: "cell", "data-column": name }));
    this.cells = Object.fromEntries(CELLS.map((name, place) => [name, cells[place]]));
    this.cells.start.append(this.toggle);
    this.cells.timeline.append(this.bar);
    this.more = el("td", { role: "cell", colspan: CELLS.length });
    this.details = el("tr", { class: "details", role: "row", hidden: true }, this.more);
    this.root = el("tbody", { role: "rowgroup" }, el("tr", { role: "row" }, cells), this.details);
  }

  open(open) {
    this.details.hidden = !open;
    this.toggle.setAttribute("aria-expanded", String(open));
    if (open) this.showDetails();
  }

  update(request, scale) {
    this.request = request;
    const running = isRunning(request);
    setText(this.toggle, clock(request.started_unix_s));
    this.toggle.setAttribute("aria-label", `Details of ${request.id}`);
    setText(this.cells.request, request.id);
    this.cells.request.title = `${request.endpoint ?? ""} ${request.id}`.trim();
    setText(this.cells.tokens, tokens(request));
    setText(this.cells.first, duration(request.ttft_s));
    setText(this.cells.total, duration(request.e2e_s));
    setText(this.cells.end, running ? "running" : ending(request));
    this.root.classList.toggle("failed", !running && isFailure(request));
    this.root.classList.toggle("running", running);
    this.drawTimeline(scale);
    if (!this.details.hidden) this.showDetails();
  }

  drawTimeline(scale) {
    const found = phases(this.request);
    PHASES.forEach((name, place) => {
      setShare(this.parts[place], scale ? (found[name] ?? 0) / scale : 0);
    });
    const text = Object.entries(found)
      .map(([name, seconds]) => `${name} ${duration(seconds)}`)
      .join(", ");
    this.bar.setAttribute("aria-label", text);
    this.bar.title = text;
  }

  showDetails() {
    const facts = factsOf(this.request);
    renderOnChange(this.more, facts, () => {
      const pairs = facts.map(([name, value]) =>
        el("div", { class: name.toLowerCase() }, el("dt", {}, name), el("dd", {}, value)),
      );
      return el("dl", {}, pairs);
    });
  }
}

/**
 * Seconds of what has happened. Until a request has ended the server does not tell queue and
 * prefill apart: both are "waiting", as is all of a request that was refused before a step.
 */
export function phases({ queue_s: queue, ttft_s: first, e2e_s: total = 0 }) {
  const begun = first ?? total;
  const decode = first == null ? {} : { decode: Math.max(0, total - first) };
  if (queue == null) return { waiting: begun, ...decode };
  return { queued: queue, prefill: Math.max(0, begun - queue), ...decode };
}

function factsOf(request) {
  const { prompt_tokens: prompt, cached_tokens: cached, completion_tokens: made } = request;
  const found = phases(request);
  const facts = [["Id", request.id]];
  if (found.waiting !== undefined) facts.push(["Waiting", duration(found.waiting)]);
  if (found.queued !== undefined) facts.push(["Queued", duration(found.queued)]);
  if (found.prefill !== undefined) {
    const computed = Math.max(0, prompt - (cached ?? 0));
    facts.push(["Prefill", `${duration(found.prefill)} for ${count(computed)} tokens`]);
  }
  if (found.decode !== undefined) {
    const speed = found.decode > 0 && made > 1 ? ` (${rate((made - 1) / found.decode)} tok/s)` : "";
    facts.push(["Decode", `${duration(found.decode)} for ${count(made)} tokens${speed}`]);
  }
  if (cached) facts.push(["Cached", `${count(cached)} of ${count(prompt)} prompt tokens`]);
  if (request.speculation?.method) facts.push(["Drafts", shortly(request.speculation)]);
  facts.push(["Call", `${request.endpoint ?? "–"}${request.status ? ` · ${request.status}` : ""}`]);
  return facts;
}

function tokens({ prompt_tokens: prompt, cached_tokens: cached, completion_tokens: made }) {
  const hits = cached ? ` (${count(cached)} cached)` : "";
  return `${count(prompt)}${hits} → ${count(made)}`;
}

function ending({ finish_reason: finish, status }) {
  return finish ?? String(status ?? "–");
}

function isFailure({ status, finish_reason: finish }) {
  if (status === LEFT) return false;
  return status >= 400 || finish === "error" || status === "error";
}
