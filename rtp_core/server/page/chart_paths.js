// Geometry of charts: from samples to SVG paths. Times are Unix seconds; null is "not measured".

export const WIDTH = 600; // user units; the picture is stretched, strokes are not
export const HEIGHT = 100;
const GAP_S = 5; // a longer pause between samples is shown as a gap, not as a line

/**
 * Connected stretches of [x, low, high] in user units, for values[i] above floors[i] at times[i].
 */
export function runs({ times, values, floors, start, span, ceiling }) {
  const found = [];
  let before = -Infinity;
  const height = (value) => (HEIGHT - Math.min(1, value / ceiling) * HEIGHT).toFixed(1);
  times.forEach((time, place) => {
    if (values[place] == null) return;
    if (time - before > GAP_S) found.push([]);
    before = time;
    const x = (((time - start) / span) * WIDTH).toFixed(1);
    const floor = floors?.[place] ?? 0;
    found.at(-1).push([x, height(floor), height(floor + values[place])]);
  });
  return found;
}

/** The upper edge; a lone sample is a dot (a line of no length with round ends). */
export function linePath(run) {
  const points = run.map(([x, , high]) => `${x} ${high}`);
  return `M${points.join("L")}${points.length === 1 ? "h0" : ""}`;
}

/** The band between the edges. */
export function areaPath(run) {
  const above = run.map(([x, , high]) => `${x} ${high}`);
  const below = run.map(([x, low]) => `${x} ${low}`).reverse();
  return `M${above.join("L")}L${below.join("L")}Z`;
}

/** The next of 1, 2, 5 times a power of ten: the scale changes seldom, the line has headroom. */
export function roundUp(peak) {
  const highest = peak * 1.05;
  if (!(highest > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(highest));
  return [1, 2, 5, 10].find((step) => step * power >= highest) * power;
}

/** Place of the sample nearest to `time`, -1 without samples. */
export function nearest(times, time) {
  let best = -1;
  times.forEach((one, place) => {
    if (best < 0 || Math.abs(one - time) < Math.abs(times[best] - time)) best = place;
  });
  return best;
}
