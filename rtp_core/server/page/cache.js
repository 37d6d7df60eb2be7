// The KV cache: what lies in it by tier and format, how that went, and what it spared.

import { legend, stack, TONES } from "./bars.js";
import { Chart } from "./charts.js";
import { el, renderOnChange, setText } from "./dom.js";
import { bytes, count, percent, ratio, short } from "./format.js";

/** Card of the cache's occupancy and of the memory plan. Tiers and formats may be any. */
export class CacheCard {
  constructor() {
    this.keys = []; // "tier/format" in the order they were first seen: colours stay
    this.occupancy = new Chart({ title: "Blocks held", format: short, stacked: true });
    this.prefix = new Chart({
      title: "Prefix hits",
      series: [{ label: "of prompt tokens", read: (one) => one.prefix_hit_rate, tone: 1 }],
      format: percent,
      top: 1,
    });
    this.charts = [this.occupancy, this.prefix];
    this.room = el("span");
    this.use = el("div", { class: "tiers" });
    this.hits = el("p", { class: "reason" });
    this.plan = el("div", { class: "plan" });
    this.root = el("section", { class: "card", id: "cache", "aria-label": "KV cache" });
    const head = el("div", { class: "split" }, el("h2", {}, "KV cache"), this.room);
    const charts = el("div", { class: "chart-pair" }, this.charts.map(({ root }) => root));
    this.root.append(head, this.use, charts, this.hits, el("h3", {}, "Memory"), this.plan);
  }

  update(memory, engine, history) {
    this.learn([engine, ...history]);
    const { blocks, cached_blocks: cached, num_blocks: total, kv_bytes: size } = engine;
    renderOnChange(this.use, [blocks, cached, total, size], () => this.tiers(engine));
    renderOnChange(this.plan, memory, () => (memory ? plan(memory) : []));
    setText(this.room, memory ? `room for ${count(memory.kv_tokens)} tokens` : "");
    setText(this.hits, hitText(engine));
  }

  // A series for what requests hold and one for what is kept, of each tier and format.
  learn(samples) {
    for (const { blocks = {}, cached_blocks: cached = {} } of samples) {
      for (const key of [...Object.keys(blocks), ...Object.keys(cached)]) {
        if (!this.keys.includes(key)) this.keys.push(key);
      }
    }
    const series = this.keys.flatMap((key, place) => seriesOf(key, place % TONES));
    const seen = series.filter(({ read }, place) => place === 0 || samples.slice(1).some(read));
    this.occupancy.setSeries(seen);
  }

  tiers({ blocks = {}, cached_blocks: cached = {}, num_blocks: total, kv_bytes: size }) {
    const names = new Set(["device", ...this.keys.map((key) => key.split("/")[0])]);
    return [...names].map((tier) => {
      const own = this.keys.filter((key) => key.split("/")[0] === tier);
      const parts = own.flatMap((key) => this.partsOf(key, blocks[key] ?? 0, cached[key] ?? 0));
      // Only the device's share has a total; a lower tier is shown by what it holds.
      return tierRow(tier, parts, tier === "device" ? { total, size } : {});
    });
  }

  partsOf(key, held, kept) {
    const tone = this.keys.indexOf(key);
    const label = key.split("/").slice(1).join("/") || key;
    const parts = [{ label, value: held, tone }];
    if (kept) parts.push({ label: `${label}, kept for reuse`, value: kept, tone, soft: true });
    return parts;
  }
}

function seriesOf(key, tone) {
  const label = key.replace("/", " ");
  return [
    { label, tone, read: (one) => one.blocks?.[key] ?? null },
    { label: `${label}, kept`, tone, soft: true, read: (one) => one.cached_blocks?.[key] ?? null },
  ];
}

function tierRow(name, parts, { total, size }) {
  const sum = (soft) =>
    parts.filter((part) => Boolean(part.soft) === soft).reduce((all, { value }) => all + value, 0);
  const [held, kept] = [sum(false), sum(true)];
  const of = total ? ` of ${count(total)}` : "";
  const share = total ? ` · ${percent(ratio(held, total))}` : "";
  const text = `${count(held)}${of} blocks in use${share}${sizeText(held, total, size)}`;
  const head = el("div", { class: "split" }, el("code", {}, name), el("span", {}, text));
  const bar = stack(parts, total ?? held + kept, `${name}: ${text}, ${count(kept)} kept`);
  const keys = parts.map((part) => ({ ...part, text: short(part.value) }));
  return el("div", { class: "tier" }, head, bar, keys.length ? legend(keys) : "");
}

function sizeText(held, total, size) {
  return held && total && size ? ` · ${bytes((held / total) * size)}` : "";
}

function hitText({ prefix_queries: queries, prefix_hits: hits }) {
  if (!queries) return "No prompt has been looked up yet.";
  const share = percent(ratio(hits, queries));
  return `${share} of prompt tokens since start were found in the cache (${count(hits)} of ${count(queries)}).`;
}

function plan({ weights_bytes: weights, kv_bytes: kv, kv_blocks: blocks, kv_reason: reason }) {
  const parts = [
    { label: "Weights", value: weights, tone: 4, text: bytes(weights) },
    { label: `KV cache (${count(blocks)} blocks)`, value: kv, tone: 0, text: bytes(kv) },
  ];
  return [
    stack(parts, weights + kv, `Weights ${bytes(weights)}, KV cache ${bytes(kv)}`),
    legend(parts),
    el("p", { class: "reason" }, reason ?? ""),
  ];
}
