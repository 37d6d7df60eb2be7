// The last line of the panel: version, model and how the engine came up.

import { bytes, count, duration } from "./format.js";

/** One line of text; what is not known yet is left out. */
export function facts(stats, effective) {
  if (!stats) return "";
  const { engine = {}, model = {} } = stats;
  const { load_bytes: size, load_seconds: seconds, preemptions } = engine;
  const load = seconds ? `weights: ${bytes(size)} in ${duration(seconds)}` : "";
  return [
    `rtp ${stats.version ?? ""}`,
    effective?.model?.path,
    model.architecture,
    model.dtype,
    model.max_model_len ? `context ${count(model.max_model_len)}` : "",
    stats.uptime_s ? `up ${duration(stats.uptime_s)}` : "",
    load,
    startText(stats.start),
    preemptions ? `${count(preemptions)} preemptions` : "",
  ]
    .filter(Boolean)
    .join(" · ");
}

// The phases worth naming: those that took a tenth of the start or more.
function startText(start) {
  if (!start) return "";
  const long = start.phases.filter(({ seconds }) => seconds >= start.total_s / 10);
  const parts = long.map(({ name, seconds }) => `${name} ${duration(seconds)}`);
  return `ready in ${duration(start.total_s)} (${parts.join(", ")})`;
}
