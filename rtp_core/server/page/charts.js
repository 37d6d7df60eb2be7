// Charts of the last minutes as SVG: styled by the sheet, sharp at any size, no library.

import { el, setText, svg } from "./dom.js";
import { areaPath, HEIGHT, linePath, nearest, roundUp, runs, WIDTH } from "./chart_paths.js";
import { clock } from "./format.js";

const STEPS = { ArrowLeft: -1, ArrowRight: 1, PageUp: 10, PageDown: -10 };

/**
 * A chart of series = [{label, read(sample), tone, soft}]; `read` gives a number, or null where
 * nothing was measured. `format` shows a value; `top` fixes the upper end, else it follows the
 * data. A `stacked` chart adds its series up; `filled` colours what lies below a line.
 */
export class Chart {
  constructor({ title, series = [], format, top = null, stacked = false, filled = true }) {
    Object.assign(this, { title, format, top, stacked, filled });
    this.times = [];
    this.pointed = null; // Unix seconds under the pointer, or chosen by keyboard
    this.onPoint = () => {}; // set by the group, which points in all charts
    this.build();
    this.setSeries(series);
  }

  build() {
    this.time = el("span", { class: "chart-time" });
    this.legend = el("span", { class: "legend" });
    this.shapes = svg("g");
    this.cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
    const grid = [0.25, 0.5, 0.75].map((share) =>
      svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: share * HEIGHT, y2: share * HEIGHT }),
    );
    // A slider over time: screen readers then know the arrow keys, and read out the sample.
    this.picture = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "slider",
      tabindex: 0,
      "aria-label": `${this.title} over time`,
      pointermove: (event) => this.hover(event),
      pointerleave: () => this.onPoint(null),
      keydown: (event) => this.step(event),
      blur: () => this.onPoint(null),
    });
    this.picture.append(...grid, this.shapes, this.cursor);
    this.scale = el("span", { class: "chart-top" });
    this.from = el("span");
    const head = el("figcaption", {}, el("b", {}, this.title), this.legend, this.time);
    const plot = el("div", { class: "plot" }, this.picture, this.scale);
    const axis = el("div", { class: "chart-axis" }, this.from, el("span", {}, "now"));
    this.root = el("figure", { class: "chart" }, head, plot, axis);
  }

  /** Replace the series; the same labels again change nothing. */
  setSeries(series) {
    const known = this.series?.map(({ label }) => label).join("\n");
    this.series = series;
    if (known === series.map(({ label }) => label).join("\n")) return;
    this.values = series.map(() => el("b"));
    const tone = ({ tone, soft }, place) => `tone-${tone ?? place}${soft ? " soft" : ""}`;
    const keys = series.map((one, place) =>
      el("span", { class: `key ${tone(one, place)}` }, el("i"), one.label, this.values[place]),
    );
    this.legend.replaceChildren(...keys);
    this.areas = series.map((one, place) => svg("path", { class: `area ${tone(one, place)}` }));
    this.lines = series.map((one, place) => svg("path", { class: `line ${tone(one, place)}` }));
    this.shapes.replaceChildren(...(this.filled ? this.areas : []), ...this.lines);
    this.picture.classList.toggle("stacked", this.stacked);
  }

  /** Draw samples of the last `span` seconds before `now` (Unix seconds). */
  update(history, span, now) {
    this.span = span;
    this.start = now - span;
    const samples = history.filter(({ t_unix_s: time }) => time >= this.start - 1);
    this.times = samples.map(({ t_unix_s: time }) => time);
    this.table = this.series.map(({ read }) => samples.map((one) => read(one) ?? null));
    const floors = this.stacked ? stackFloors(this.table) : [];
    this.ceiling = this.top ?? roundUp(peak(this.table, floors));
    this.table.forEach((values, place) => {
      const found = runs({ ...this, values, floors: floors[place] });
      this.lines[place].setAttribute("d", found.map(linePath).join(""));
      this.areas[place].setAttribute("d", found.map(areaPath).join(""));
    });
    setText(this.scale, this.format(this.ceiling));
    setText(this.from, span < 60 ? `−${span} s` : `−${span / 60} min`);
    this.show();
  }

  hover({ clientX }) {
    const { left, width } = this.picture.getBoundingClientRect();
    const time = this.start + ((clientX - left) / width) * this.span;
    this.onPoint(this.times[nearest(this.times, time)] ?? null);
  }

  // Arrow keys walk through the samples; Escape returns to now.
  step(event) {
    const last = this.times.length - 1;
    const ends = { Home: 0, End: last };
    if (event.key === "Escape" && this.pointed !== null) {
      event.stopPropagation(); // not a stop of the reply
      this.onPoint(null);
    } else if (event.key in STEPS || event.key in ends) {
      event.preventDefault();
      const from = this.pointed === null ? last : nearest(this.times, this.pointed);
      const to = ends[event.key] ?? from + STEPS[event.key];
      this.onPoint(this.times[Math.max(0, Math.min(last, to))] ?? null);
    }
  }

  /** Show the sample at a time, or the newest again for null. */
  point(time) {
    this.pointed = time;
    this.show();
  }

  show() {
    const last = this.times.length - 1;
    const place = this.pointed === null ? last : nearest(this.times, this.pointed);
    const texts = this.series.map((_, row) => this.format(this.valueAt(row, place)));
    texts.forEach((text, row) => setText(this.values[row], text));
    const pointed = this.pointed !== null && place >= 0;
    setText(this.time, pointed ? clock(this.times[place]) : "");
    this.cursor.setAttribute("visibility", pointed ? "visible" : "hidden");
    if (pointed) {
      const x = ((this.times[place] - this.start) / this.span) * WIDTH;
      this.cursor.setAttribute("x1", x);
      this.cursor.setAttribute("x2", x);
    }
    this.describe(place, pointed, texts);
  }

  // Now is the newest that was measured: not every second has a first token.
  valueAt(row, place) {
    const values = this.table?.[row] ?? [];
    return this.pointed === null ? values.findLast((value) => value !== null) : values[place];
  }

  // Not while it has the focus and only time goes by: that would be read out each second.
  describe(place, pointed, texts) {
    if (!pointed && document.activeElement === this.picture) return;
    const when = pointed ? clock(this.times[place]) : "now";
    const parts = this.series.map(({ label }, row) => `${label} ${texts[row]}`);
    this.picture.setAttribute("aria-valuemin", 0);
    this.picture.setAttribute("aria-valuemax", Math.max(0, this.times.length - 1));
    this.picture.setAttribute("aria-valuenow", Math.max(0, place));
    this.picture.setAttribute("aria-valuetext", `${when}: ${parts.join(", ") || "no data"}`);
  }
}

function stackFloors(table) {
  const floors = [];
  let level = table[0]?.map(() => 0) ?? [];
  for (const values of table) {
    floors.push(level);
    level = level.map((height, place) => height + (values[place] ?? 0));
  }
  return floors;
}

function peak(table, floors) {
  let highest = 0;
  table.forEach((values, row) => {
    values.forEach((value, place) => {
      highest = Math.max(highest, (value ?? 0) + (floors[row]?.[place] ?? 0));
    });
  });
  return highest;
}

/** Charts that show the same span of time, with one cursor through all of them. */
export class ChartGroup {
  constructor(charts, span) {
    this.charts = charts;
    this.span = span;
    this.history = [];
    for (const chart of charts) chart.onPoint = (time) => this.point(time);
  }

  setSpan(span) {
    this.span = span;
    this.draw();
  }

  update(history) {
    this.history = history;
    this.draw();
  }

  // The newest sample is "now": the server's clock may differ from this machine's.
  draw() {
    const now = this.history.at(-1)?.t_unix_s ?? Date.now() / 1000;
    for (const chart of this.charts) chart.update(this.history, this.span, now);
  }

  point(time) {
    for (const chart of this.charts) chart.point(time);
  }
}
