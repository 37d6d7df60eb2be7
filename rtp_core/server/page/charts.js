// Line charts of the last minutes as SVG: styled by the sheet, sharp at any size, no library.

import { el, setText, svg } from "./dom.js";
import { clock } from "./format.js";

const WIDTH = 600; // user units; the picture is stretched, strokes are not
const HEIGHT = 100;
const GAP_S = 5; // a longer pause between samples is shown as a gap, not as a line

/**
 * A chart of `series` = [{key, label}] over history samples; `format` shows a value; `top` fixes
 * the upper end, else it follows the data.
 */
export class LineChart {
  constructor({ title, series, format, top = null }) {
    this.title = title;
    this.series = series;
    this.format = format;
    this.top = top;
    this.samples = [];
    this.hovered = null; // share of the width under the pointer
    this.build();
  }

  build() {
    this.values = this.series.map(() => el("output"));
    this.time = el("span", { class: "chart-time" });
    const legend = this.series.map(({ label }, place) =>
      el("span", { class: `key tone-${place}` }, el("i"), label, this.values[place]),
    );
    this.areas = this.series.map((_, place) => svg("path", { class: `area tone-${place}` }));
    this.lines = this.series.map((_, place) => svg("path", { class: `line tone-${place}` }));
    this.cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
    const grid = [0.25, 0.5, 0.75].map((share) =>
      svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: share * HEIGHT, y2: share * HEIGHT }),
    );
    this.picture = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
      pointermove: (event) => this.hover(event),
      pointerleave: () => this.hover(null),
    });
    this.picture.append(...grid, ...this.areas, ...this.lines, this.cursor);
    this.scale = el("span", { class: "chart-top" });
    this.from = el("span");
    const keys = el("span", { class: "legend" }, legend);
    const head = el("figcaption", {}, el("b", {}, this.title), keys, this.time);
    const plot = el("div", { class: "plot" }, this.picture, this.scale);
    const axis = el("div", { class: "chart-axis" }, this.from, el("span", {}, "now"));
    this.root = el("figure", { class: "chart" }, head, plot, axis);
  }

  /** Draw samples of the last `span` seconds before `now` (Unix seconds). */
  update(history, span, now) {
    this.span = span;
    this.start = now - span;
    this.samples = history.filter(({ t_unix_s: time }) => time >= this.start - GAP_S);
    this.ceiling = this.top ?? ceiling(Math.max(0, ...this.points().map(([, value]) => value)));
    this.series.forEach(({ key }, place) => {
      const runs = this.runs(key);
      this.lines[place].setAttribute("d", runs.map(linePath).join(""));
      this.areas[place].setAttribute("d", runs.map(areaPath).join(""));
    });
    setText(this.scale, this.format(this.ceiling));
    setText(this.from, `−${span / 60} min`);
    this.showValues();
  }

  points() {
    return this.series.flatMap(({ key }) =>
      this.samples.filter((one) => one[key] != null).map((one) => [one.t_unix_s, one[key]]),
    );
  }

  // Connected stretches of [x, y] in user units.
  runs(key) {
    const runs = [];
    let before = -Infinity;
    for (const sample of this.samples) {
      if (sample[key] == null) continue;
      if (sample.t_unix_s - before > GAP_S) runs.push([]);
      before = sample.t_unix_s;
      const x = ((sample.t_unix_s - this.start) / this.span) * WIDTH;
      const y = HEIGHT - Math.min(1, sample[key] / this.ceiling) * HEIGHT;
      runs.at(-1).push([x.toFixed(1), y.toFixed(1)]);
    }
    return runs;
  }

  hover(event) {
    const box = this.picture.getBoundingClientRect();
    this.hovered = event ? (event.clientX - box.left) / box.width : null;
    this.showValues();
  }

  // The sample under the pointer, else the newest.
  showValues() {
    const sample = this.hovered === null ? this.samples.at(-1) : this.nearest();
    this.series.forEach(({ key }, place) => {
      setText(this.values[place], this.format(sample?.[key]));
    });
    const pointed = this.hovered !== null && sample;
    setText(this.time, pointed ? clock(sample.t_unix_s) : "");
    this.cursor.setAttribute("visibility", pointed ? "visible" : "hidden");
    if (pointed) {
      const x = ((sample.t_unix_s - this.start) / this.span) * WIDTH;
      this.cursor.setAttribute("x1", x);
      this.cursor.setAttribute("x2", x);
    }
    this.picture.setAttribute("aria-label", this.describe());
  }

  nearest() {
    const time = this.start + this.hovered * this.span;
    const distance = (sample) => Math.abs(sample.t_unix_s - time);
    return this.samples.reduce(
      (best, sample) => (!best || distance(sample) < distance(best) ? sample : best),
      null,
    );
  }

  describe() {
    const newest = this.samples.at(-1);
    const parts = this.series.map(({ key, label }) => `${label} ${this.format(newest?.[key])} now`);
    return `${this.title}: ${parts.join(", ")}; scale to ${this.format(this.ceiling)}`;
  }
}

function linePath(run) {
  return `M${run.map((point) => point.join(" ")).join("L")}`;
}

function areaPath(run) {
  return `${linePath(run)}L${run.at(-1)[0]} ${HEIGHT}L${run[0][0]} ${HEIGHT}Z`;
}

/** The next of 1, 2, 5 times a power of ten: the scale changes seldom, the line has headroom. */
function ceiling(peak) {
  const highest = peak * 1.05;
  if (highest <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(highest));
  return [1, 2, 5, 10].find((step) => step * power >= highest) * power;
}
