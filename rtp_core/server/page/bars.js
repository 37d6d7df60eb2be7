// Bars that show shares, and the keys that explain their colours.

import { el, setShare } from "./dom.js";
import { ratio } from "./format.js";

export const TONES = 8; // colours of the style sheet

/** Bar of parts = [{value, tone, soft}], each a share of `total`; `label` says it in words. */
export function stack(parts, total, label) {
  const bar = el("div", { class: "bar", role: "img", "aria-label": label });
  for (const { value, tone, soft } of parts) {
    const part = el("i", { class: toneOf(tone, soft) });
    setShare(part, ratio(value, total));
    bar.append(part);
  }
  return bar;
}

/** Colour, name and text of each part = {label, text, tone, soft}. */
export function legend(parts) {
  const keys = parts.map(({ label, text, tone, soft }) =>
    el("span", { class: `key ${toneOf(tone, soft)}` }, el("i"), label, el("b", {}, text)),
  );
  return el("div", { class: "legend" }, keys);
}

function toneOf(tone, soft) {
  return `tone-${tone % TONES}${soft ? " soft" : ""}`;
}
