// Numbers as people read them. A missing value is a dash, never NaN.

const DASH = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** 1,234 */
export function count(value) {
  return known(value) ? whole.format(value) : DASH;
}

/** 12.3K from ten thousand on, exact below. */
export function short(value) {
  if (!known(value)) return DASH;
  return Math.abs(value) < 10000 ? whole.format(value) : compact.format(value);
}

/** One digit after the point below 100. */
export function rate(value) {
  if (!known(value)) return DASH;
  return value < 100 ? value.toFixed(1) : whole.format(value);
}

/** 0..1 to percent. */
export function percent(value) {
  if (!known(value)) return DASH;
  const scaled = value * 100;
  return `${scaled > 0 && scaled < 10 ? scaled.toFixed(1) : scaled.toFixed(0)} %`;
}

/** Binary units, as memory is sold. */
export function bytes(value) {
  if (!known(value)) return DASH;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  while (Math.abs(value) >= 1024 && place < units.length - 1) {
    value /= 1024;
    place += 1;
  }
  return `${place === 0 || value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${units[place]}`;
}

/** Seconds to the unit that fits. */
export function duration(seconds) {
  if (!known(seconds)) return DASH;
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 1) return `${(seconds * 1000).toFixed(0)} ms`;
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const total = Math.floor(seconds);
  const [days, hours] = [Math.floor(total / 86400), Math.floor(total / 3600) % 24];
  const [minutes, rest] = [Math.floor(total / 60) % 60, total % 60];
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${rest} s`;
}

/** Wall clock of a Unix time in seconds. */
export function clock(unixSeconds) {
  return known(unixSeconds) ? new Date(unixSeconds * 1000).toTimeString().slice(0, 8) : DASH;
}

/** part / total, or null when there is no total. */
export function ratio(part, total) {
  return known(part) && known(total) && total > 0 ? part / total : null;
}
