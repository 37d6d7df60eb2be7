// Where the memory goes: weights and KV cache, and what lies in the cache by tier and format.

import { el, renderOnChange, setShare, setText } from "./dom.js";
import { bytes, count, percent, ratio, short } from "./format.js";

const TONES = 5; // colours of the style sheet

/** Card of the memory plan and the cache's use. */
export class MemoryCard {
  constructor() {
    this.plan = el("div");
    this.use = el("div", { class: "tiers" });
    this.reason = el("p", { class: "reason" });
    this.root = el("section", { class: "card", id: "memory" });
    this.root.append(el("h2", {}, "Memory"), this.plan, el("h3", {}, "KV cache in use"), this.use);
    this.root.append(this.reason);
  }

  update(memory, engine) {
    renderOnChange(this.plan, memory, () => (memory ? plan(memory) : []));
    renderOnChange(this.use, [engine.blocks, engine.num_blocks], () =>
      tiers(engine),
    );
    setText(this.reason, memory?.kv_reason ?? "");
  }
}

function plan({ weights_bytes: weights, kv_bytes: kv, kv_blocks: blocks, kv_tokens: tokens }) {
  const total = weights + kv;
  const parts = [
    { label: "Weights", value: weights, tone: 0 },
    { label: "KV cache", value: kv, tone: 1 },
  ];
  return [
    stack(parts, total, `Weights ${bytes(weights)}, KV cache ${bytes(kv)}`),
    legend(parts.map((part) => ({ ...part, text: bytes(part.value) }))),
    el("p", {}, `Room for ${count(tokens)} tokens in ${count(blocks)} blocks.`),
  ];
}

// "device/dense" -> 12: blocks in use, by tier and format. Only the device's share has a total.
function tiers({ blocks = {}, num_blocks: total }) {
  const entries = Object.entries(blocks).map(([key, value]) => [...key.split("/"), value]);
  const formats = [...new Set(entries.map(([, format]) => format))].sort();
  const names = [...new Set(["device", ...entries.map(([tier]) => tier)])];
  return names.map((tier) => {
    const parts = entries
      .filter(([owner]) => owner === tier)
      .map(([, label, value]) => ({ label, value, tone: formats.indexOf(label) % TONES }));
    const used = parts.reduce((sum, part) => sum + part.value, 0);
    return tier === "device" ? device(parts, used, total) : lower(tier, parts, used);
  });
}

function device(parts, used, total) {
  const text = `${count(used)} of ${count(total)} blocks · ${percent(ratio(used, total))}`;
  return tierRow("device", text, stack(parts, total, `device: ${text}`), parts);
}

function lower(tier, parts, used) {
  const text = `${count(used)} blocks`;
  return tierRow(tier, text, stack(parts, used, `${tier}: ${text}`), parts);
}

function tierRow(name, text, bar, parts) {
  const head = el("div", { class: "split" }, el("code", {}, name), el("span", {}, text));
  const texts = parts.map((part) => ({ ...part, text: short(part.value) }));
  return el("div", { class: "tier" }, head, bar, texts.length ? legend(texts) : "");
}

function stack(parts, total, label) {
  const bar = el("div", { class: "bar", role: "img", "aria-label": label });
  for (const { value, tone } of parts) {
    const part = el("i", { class: `tone-${tone}` });
    setShare(part, ratio(value, total));
    bar.append(part);
  }
  return bar;
}

function legend(parts) {
  const keys = parts.map(({ label, text, tone }) =>
    el("span", { class: `key tone-${tone}` }, el("i"), label, el("output", {}, text)),
  );
  return el("div", { class: "legend" }, keys);
}
