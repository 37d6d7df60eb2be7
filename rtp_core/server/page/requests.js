// Running and recent requests, newest first. Rows are kept by id and updated in place, so that
// scrolling, focus and selection survive a poll.

import { el } from "./dom.js";
import { RequestRow } from "./request_row.js";
import { isRunning } from "./records.js";

const SHOWN = 50;
const COLUMNS = ["Start", "Request", "Tokens", "First token", "Total", "Timeline", "End"];
const PHASES = ["queued", "prefill", "decode"];

/** Card with one timeline a request. */
export class RequestTable {
  constructor() {
    this.rows = new Map();
    const names = COLUMNS.map((name) => el("th", { scope: "col", role: "columnheader" }, name));
    const head = el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, names));
    this.table = el("table", { class: "requests", role: "table" }, head);
    this.scroll = el("div", { class: "table-scroll" }, this.table);
    this.scroll.setAttribute("aria-label", "Requests");
    this.scroll.setAttribute("role", "region");
    this.none = el("p", { class: "muted" }, "No requests yet. Ask something in the chat.");
    const keys = PHASES.map((name) => el("span", { class: `key ${name}` }, el("i"), name));
    this.root = el("section", { class: "card", id: "requests", "aria-label": "Requests" });
    const title = el("div", { class: "split" }, el("h2", {}, "Requests"));
    title.append(el("div", { class: "legend" }, keys));
    this.root.append(title, this.none, this.scroll);
    this.table.addEventListener("keydown", (event) => this.walk(event));
    this.table.addEventListener("focusin", ({ target }) => this.enter(target));
  }

  // One stop for the Tab key, however many rows: the arrow keys go from row to row.
  enter(target) {
    for (const { toggle } of this.rows.values()) toggle.tabIndex = toggle === target ? 0 : -1;
  }

  walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const toggles = [...this.table.querySelectorAll(".toggle")];
    const place = toggles.indexOf(event.target);
    if (!step || place < 0) return;
    event.preventDefault();
    toggles[place + step]?.focus();
  }

  update(requests) {
    const newest = [...requests].sort(runningFirst).slice(0, SHOWN);
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
    const stop = this.table.querySelector(".toggle[tabindex='0']") ?? rows[0]?.querySelector(".toggle");
    if (stop) stop.tabIndex = 0;
    rows.forEach((root, place) => {
      const there = this.table.tBodies[place];
      if (there !== root) this.table.insertBefore(root, there ?? null);
    });
  }

  row(request, scale) {
    if (!this.rows.has(request.id)) this.rows.set(request.id, new RequestRow());
    const row = this.rows.get(request.id);
    row.update(request, scale);
    return row.root;
  }

  /** Open a request's details and bring it into view; false if it is not in the list. */
  show(id) {
    const row = this.rows.get(id);
    if (!row) return false;
    row.open(true);
    row.root.scrollIntoView({ block: "center" });
    row.toggle.focus({ preventScroll: true });
    return true;
  }
}

function runningFirst(one, other) {
  const order = Number(isRunning(other)) - Number(isRunning(one));
  return order || other.started_unix_s - one.started_unix_s;
}
