// A small, safe Markdown renderer for model output: blocks here, inline in markdown_inline.js.
// Raw HTML stays text. Incomplete input (a stream) is shown as far as it is understood.

import { copyButton } from "./copy.js";
import { el } from "./dom.js";
import { inline } from "./markdown_inline.js";

const MAX_DEPTH = 8; // of lists and quotes in each other
const AUTO = { dir: "auto" }; // each block runs the way its first letter does
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?: +|$)/;
const TABLE_RULE = /^ {0,3}\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

/** Shows a growing text; only blocks that changed since the last call are rebuilt. */
export class MarkdownView {
  constructor() {
    this.root = el("div", { class: "markdown" });
    this.sources = [];
  }

  /** Render the whole text so far. Finished paragraphs keep their nodes (and a selection). */
  update(text) {
    const blocks = parseBlocks(text.replace(/\r\n?/g, "\n").split("\n"));
    blocks.forEach((block, place) => {
      const source = `${block.kind}\n${block.lines.join("\n")}`;
      if (this.sources[place] === source) return;
      this.sources[place] = source;
      const node = renderBlock(block, 0);
      if (place < this.root.children.length) this.root.children[place].replaceWith(node);
      else this.root.append(node);
    });
    this.sources.length = blocks.length;
    while (this.root.children.length > blocks.length) this.root.lastChild.remove();
  }
}

/** Splits lines into {kind, lines, ...}; each block owns its source lines. */
function parseBlocks(lines) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const block = readBlock(lines, at);
    blocks.push(block);
    at += block.lines.length;
  }
  return blocks;
}

function readBlock(lines, at) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return readFence(lines, at, fence);
  if (HEADING.test(line)) return { kind: "heading", lines: [line] };
  if (RULE.test(line)) return { kind: "rule", lines: [line] };
  if (QUOTE.test(line)) return take("quote", lines, at, (next) => QUOTE.test(next));
  if (ITEM.test(line)) return readList(lines, at);
  if (line.includes("|") && TABLE_RULE.test(lines[at + 1] || "")) {
    return take("table", lines, at, (next) => next.includes("|"));
  }
  return take("paragraph", lines, at, (next) => next.trim() && !startsBlock(next));
}

function startsBlock(line) {
  return [FENCE, HEADING, RULE, QUOTE, ITEM].some((pattern) => pattern.test(line));
}

function take(kind, lines, at, belongs) {
  let end = at + 1;
  while (end < lines.length && belongs(lines[end])) end += 1;
  return { kind, lines: lines.slice(at, end) };
}

function readFence(lines, at, [, mark, language]) {
  let end = at + 1;
  const closes = (line) => {
    const bare = line.trim();
    return bare.length >= mark.length && bare === mark[0].repeat(bare.length);
  };
  while (end < lines.length && !closes(lines[end])) end += 1;
  const code = lines.slice(at + 1, end);
  return { kind: "code", lines: lines.slice(at, end + 1), code, language: language.trim() };
}

// A list goes on over blank lines as long as items or indented text follow.
function readList(lines, at) {
  const ordered = /\d/.test(ITEM.exec(lines[at])[2]);
  let end = at + 1;
  for (let next = at + 1; next < lines.length; next += 1) {
    const line = lines[next];
    if (!line.trim()) continue;
    const item = ITEM.exec(line);
    const sameList = item && (item[1].length > 1 || /\d/.test(item[2]) === ordered);
    const lazy = next === end && !startsBlock(line); // a paragraph line without its indent
    if (!(sameList && !RULE.test(line)) && !/^ {2,}\S/.test(line) && !lazy) break;
    end = next + 1;
  }
  return { kind: "list", lines: lines.slice(at, end), ordered };
}

function renderBlock(block, depth) {
  switch (block.kind) {
    case "code":
      return renderCode(block);
    case "heading": {
      const [, marks, text] = HEADING.exec(block.lines[0]);
      // The page's own headings are h1 and h2, so a reply's begin below them.
      return el(`h${Math.min(6, marks.length + 2)}`, AUTO, inline(text.trim().replace(/ #+$/, "")));
    }
    case "rule":
      return el("hr");
    case "quote":
      return el("blockquote", AUTO, nested(block.lines.map((line) => line.replace(QUOTE, "")), depth));
    case "list":
      return renderList(block, depth);
    case "table":
      return renderTable(block.lines);
    default:
      return el("p", AUTO, inline(block.lines.map((line) => line.trim()).join("\n")));
  }
}

function nested(lines, depth) {
  if (depth >= MAX_DEPTH) return [el("p", AUTO, lines.join("\n"))];
  return parseBlocks(lines).map((block) => renderBlock(block, depth + 1));
}

function renderList({ lines, ordered }, depth) {
  const items = [];
  const outer = ITEM.exec(lines[0])[1].length;
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && item[1].length <= outer + 1) {
      items.push({ width: item[0].length, lines: [line.slice(item[0].length)] });
    } else {
      const current = items[items.length - 1];
      const indent = Math.min(current.width, /^ */.exec(line)[0].length);
      current.lines.push(line.slice(indent));
    }
  }
  const first = ordered ? parseInt(lines[0].trim(), 10) : 1;
  const start = first === 1 ? null : first;
  return el(ordered ? "ol" : "ul", { start, ...AUTO }, items.map((item) => el("li", AUTO, listItem(item, depth))));
}

// A one-paragraph item is shown tight, without the margins of a paragraph.
function listItem({ lines }, depth) {
  const nodes = nested(lines, depth);
  return nodes[0]?.tagName === "P" ? [...nodes[0].childNodes, ...nodes.slice(1)] : nodes;
}

function renderTable(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const row = (line, tag) => el("tr", {}, cells(line).map((cell) => el(tag, AUTO, inline(cell))));
  const head = el("thead", {}, row(lines[0], "th"));
  const body = el("tbody", {}, lines.slice(2).map((line) => row(line, "td")));
  return el("div", { class: "table-scroll", tabindex: "0" }, el("table", AUTO, head, body));
}

function renderCode({ code, language }) {
  const text = code.join("\n");
  const head = el("div", { class: "code-head" }, el("span", {}, language || "text"));
  head.append(copyButton(() => text, "Copy code"));
  return el("div", { class: "code" }, head, el("pre", { tabindex: "0" }, el("code", {}, text)));
}
