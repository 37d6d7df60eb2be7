// What the tab remembers: sessionStorage only, so closing the tab forgets everything.

// Two servers may share an origin under different root paths.
const PREFIX = `rtp:${new URL("../", import.meta.url).pathname}:`;

/** The stored value, or `fallback` when absent or unreadable. */
export function recall(name, fallback) {
  try {
    const stored = sessionStorage.getItem(PREFIX + name);
    return stored === null ? fallback : JSON.parse(stored);
  } catch {
    return fallback; // storage switched off, or not ours
  }
}

/** Store a JSON value; null forgets it. False when the storage is full or forbidden. */
export function remember(name, value) {
  try {
    if (value === null) sessionStorage.removeItem(PREFIX + name);
    else sessionStorage.setItem(PREFIX + name, JSON.stringify(value));
    return true;
  } catch {
    return false; // the page goes on; only a reload would lose this
  }
}
