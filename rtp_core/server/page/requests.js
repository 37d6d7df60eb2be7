// Recent requests, newest first, each with a timeline of queue, prefill and decode.

import { el, setShare, setText } from "./dom.js";
import { clock, count, duration } from "./format.js";

const SHOWN = 50;
const LEFT = 499; // the client stopped the answer, which is no failure
const PHASES = ["queue", "prefill", "decode"];
const COLUMNS = ["Start", "Request", "Tokens", "First token", "Total", "Timeline", "End"];

/** Rows are kept by id and updated in place, so that scrolling and selection survive a poll. */
export class RequestTable {
  constructor() {
    this.rows = new Map();
    this.body = el("tbody");
    const names = COLUMNS.map((name) => el("th", { scope: "col" }, name));
    const table = el("table", { class: "requests" }, el("thead", {}, el("tr", {}, names)), this.body);
    this.scroll = el("div", { class: "table-scroll", tabindex: "0" }, table);
    this.scroll.setAttribute("aria-label", "Recent requests");
    this.scroll.setAttribute("role", "region");
    this.none = el("p", { class: "muted" }, "No requests yet. Ask something in the chat.");
    const keys = PHASES.map((name) => el("span", { class: `key ${name}` }, el("i"), name));
    this.root = el("section", { class: "card", id: "requests" });
    const head = el("div", { class: "split" }, el("h2", {}, "Recent requests"));
    head.append(el("div", { class: "legend" }, keys));
    this.root.append(head, this.none, this.scroll);
  }

  update(requests) {
    const newest = [...requests]
      .sort((one, other) => other.started_unix_s - one.started_unix_s)
      .slice(0, SHOWN);
    const scale = Math.max(0, ...newest.map((request) => request.e2e_s ?? 0));
    this.none.hidden = newest.length > 0;
    this.scroll.hidden = newest.length === 0;
    const rows = newest.map((request) => this.row(request, scale));
    const kept = new Set(newest.map(({ id }) => id));
    for (const [id, row] of this.rows) {
      if (kept.has(id)) continue;
      row.root.remove();
      this.rows.delete(id);
    }
    rows.forEach((row, place) => {
      const there = this.body.children[place];
      if (there !== row) this.body.insertBefore(row, there ?? null);
    });
  }

  row(request, scale) {
    if (!this.rows.has(request.id)) this.rows.set(request.id, new Row());
    const row = this.rows.get(request.id);
    row.update(request, scale);
    return row.root;
  }
}

class Row {
  constructor() {
    this.parts = PHASES.map((name) => el("i", { class: name }));
    this.bar = el("div", { class: "timeline", role: "img" }, this.parts);
    this.cells = COLUMNS.map((name) => el("td", { "data-column": name.split(" ")[0].toLowerCase() }));
    this.cells[5].append(this.bar);
    this.root = el("tr", {}, this.cells);
  }

  update(request, scale) {
    const texts = [
      clock(request.started_unix_s),
      request.id,
      tokens(request),
      duration(request.ttft_s),
      duration(request.e2e_s),
      null,
      request.finish_reason ?? String(request.status ?? "–"),
    ];
    texts.forEach((text, place) => {
      if (text !== null) setText(this.cells[place], text);
    });
    this.cells[1].title = `${request.endpoint ?? ""} ${request.id}`.trim();
    this.root.classList.toggle("failed", isFailure(request));
    this.drawTimeline(request, scale);
  }

  drawTimeline(request, scale) {
    const times = phases(request);
    times.forEach((time, place) => setShare(this.parts[place], scale ? time / scale : 0));
    const text = times.map((time, place) => `${PHASES[place]} ${duration(time)}`).join(", ");
    this.bar.setAttribute("aria-label", text);
    this.bar.title = text;
  }
}

/** Seconds in queue, prefill and decode; what has not happened yet is 0. */
function phases({ queue_s: queue, ttft_s: first, e2e_s: total }) {
  const waited = Math.max(0, queue ?? 0);
  const prefill = Math.max(0, (first ?? total ?? waited) - waited);
  const decode = Math.max(0, (total ?? 0) - (first ?? total ?? 0));
  return [waited, prefill, decode];
}

function tokens({ prompt_tokens: prompt, cached_tokens: cached, completion_tokens: made }) {
  const hits = cached ? ` (${count(cached)} cached)` : "";
  return `${count(prompt)}${hits} → ${count(made)}`;
}

function isFailure({ status, finish_reason: finish }) {
  if (status === LEFT) return false;
  return (typeof status === "number" && status >= 400) || finish === "error" || status === "error";
}
