// Markdown inside a line: code, strong, emphasis, strike, links. Linear in practice: a closing
// mark that was once not found is not searched for again. Builds nodes, never markup.

import { el } from "./dom.js";

const MAX_DEPTH = 6; // nesting beyond this is shown as typed
const MARKS = [
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "del"],
  ["*", "em"],
  ["_", "em"],
];
const ESCAPABLE = /[\\`*_{}[\]()#+\-.!~>|]/;
const SPECIAL = /[\\`*_~[!h]/g;
const BARE_URL = /https?:\/\/[^\s<>"'`]+/y;
const WORD = /[\p{L}\p{N}]/u;

/** Array of nodes and strings for a run of inline Markdown. */
export function inline(text, depth = 0) {
  const out = [];
  const missing = new Set();
  let plain = "";
  let at = 0;
  while (at < text.length) {
    SPECIAL.lastIndex = at;
    const found = SPECIAL.exec(text);
    const next = found ? found.index : text.length;
    plain += text.slice(at, next);
    at = next;
    if (!found) break;
    const piece = depth < MAX_DEPTH ? readPiece(text, at, missing, depth) : null;
    if (piece) {
      if (plain) out.push(plain);
      plain = "";
      out.push(piece.node);
      at = piece.end;
    } else {
      plain += text[at];
      at += 1;
    }
  }
  if (plain) out.push(plain);
  return out;
}

function readPiece(text, at, missing, depth) {
  switch (text[at]) {
    case "\\":
      return ESCAPABLE.test(text[at + 1] || "") ? { node: text[at + 1], end: at + 2 } : null;
    case "`":
      return readCode(text, at, missing);
    case "[":
      return readLink(text, at, at, missing, depth);
    case "!": // an image would be a request to a foreign host: it becomes a link
      return text[at + 1] === "[" ? readLink(text, at + 1, at, missing, depth) : null;
    case "h":
      return readBareUrl(text, at);
    default:
      return readMark(text, at, missing, depth);
  }
}

function readCode(text, at, missing) {
  let ticks = 1;
  while (text[at + ticks] === "`") ticks += 1;
  const fence = "`".repeat(ticks);
  const close = find(text, fence, at + ticks, missing);
  if (close < 0) return { node: fence, end: at + ticks };
  const code = text.slice(at + ticks, close);
  const padded = code.startsWith(" ") && code.endsWith(" ") && code.trim(); // `` `a` ``
  return { node: el("code", {}, padded ? code.slice(1, -1) : code), end: close + ticks };
}

function readMark(text, at, missing, depth) {
  for (const [mark, tag] of MARKS) {
    if (!text.startsWith(mark, at)) continue;
    const start = at + mark.length;
    if (!/\S/.test(text[start] || "")) continue;
    const isWordMark = mark[0] === "_"; // snake_case is a name, not emphasis
    if (isWordMark && WORD.test(text[at - 1] || "")) continue;
    const close = findClosing(text, mark, start + 1, missing, isWordMark);
    if (close < 0) continue;
    const node = el(tag, {}, inline(text.slice(start, close), depth + 1));
    return { node, end: close + mark.length };
  }
  return null;
}

function findClosing(text, mark, from, missing, isWordMark) {
  let close = find(text, mark, from, missing);
  while (close >= 0) {
    // The inner mark of "***both***" belongs to the inner emphasis.
    while (mark.length === 2 && text[close + 2] === mark[0]) close += 1;
    const tight = /\S/.test(text[close - 1]);
    const after = text[close + mark.length] || "";
    const longer = mark.length === 1 && (after === mark || text[close - 1] === mark);
    if (tight && !longer && !(isWordMark && WORD.test(after))) return close;
    close = find(text, mark, close + 1, missing);
  }
  missing.add(mark);
  return -1;
}

function find(text, mark, from, missing) {
  if (missing.has(mark)) return -1;
  const place = text.indexOf(mark, from);
  if (place < 0) missing.add(mark);
  return place;
}

function readLink(text, open, start, missing, depth) {
  const middle = find(text, "](", open, missing);
  if (middle < 0 || text.slice(open + 1, middle).includes("[")) return null;
  const close = find(text, ")", middle, missing);
  if (close < 0) return null;
  const address = text.slice(middle + 2, close).trim().split(/\s/)[0];
  const href = safeAddress(address);
  if (!href) return null;
  const label = inline(text.slice(open + 1, middle), depth + 1);
  return { node: link(href, label.length ? label : [href]), end: close + 1 };
}

function readBareUrl(text, at) {
  BARE_URL.lastIndex = at;
  const found = BARE_URL.exec(text);
  if (!found || WORD.test(text[at - 1] || "")) return null;
  const address = found[0].replace(/[.,;:!?)\]*_~]+$/, "");
  const href = safeAddress(address);
  return href ? { node: link(href, [address]), end: at + address.length } : null;
}

/** Absolute http(s) addresses only: no javascript:, data: or paths of this server. */
function safeAddress(address) {
  if (!/^https?:\/\//i.test(address)) return null;
  try {
    return new URL(address).href;
  } catch {
    return null;
  }
}

// The title shows where the link leads, whatever its text claims.
function link(href, label) {
  const rel = "noopener noreferrer nofollow";
  return el("a", { href, rel, target: "_blank", title: href }, label);
}
