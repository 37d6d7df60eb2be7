// What the server is doing: loading, ready, locked or gone, and its numbers each second.

import { getJson, isHealthy } from "./api.js";
import { Records } from "./records.js";

const PERIOD_MS = 1000;
const PLUGINS_EVERY = 30; // rounds; features change only when a failing plugin is dropped
const NOT_READY = ["loading", "draining", "broken"];

/**
 * Polls and reports `{phase, waited, stats, plugins, effective, models}` to `onChange`.
 *
 * Phases: "connecting", "loading" (503 from /health), "ready", "draining", "broken",
 * "locked" (401) and "unreachable". `waited` is seconds since the phase began.
 */
export class Connection {
  constructor(onChange) {
    this.onChange = onChange;
    this.phase = "connecting";
    this.since = performance.now();
    this.data = { stats: null, plugins: [], effective: null, models: [] };
    this.records = new Records();
    this.round = 0;
    this.timer = 0;
    this.turn = 0; // of the newest loop; an older one that is still waiting gives up
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.wake();
    });
  }

  /** Poll now, for example because a key was entered, and go on each second. */
  wake() {
    clearTimeout(this.timer);
    this.turn += 1;
    this.loop(this.turn);
  }

  async loop(turn) {
    const phase = await this.poll();
    if (turn !== this.turn) return;
    this.enter(phase);
    // Without a key every answer is 401; a hidden tab asks nothing, as the server keeps history.
    if (phase === "locked" || document.hidden) return;
    this.timer = setTimeout(() => this.loop(turn), PERIOD_MS);
  }

  enter(phase) {
    if (phase !== this.phase) this.since = performance.now();
    this.phase = phase;
    const waited = (performance.now() - this.since) / 1000;
    this.onChange({ phase, waited, ...this.data });
  }

  async poll() {
    try {
      // Health needs no key, so it is asked first, until the engine is ready.
      if (this.phase !== "ready" && !(await isHealthy())) return await this.whyNotReady();
      await this.readStats();
      if (this.round % PLUGINS_EVERY === 0) await this.readPlan();
      this.round += 1;
      return stateOf(this.data.stats);
    } catch (error) {
      this.round = 0; // another server, or another plan, may answer next
      if (error.status === 401) return "locked";
      if (error.status === 503) return "loading";
      // Another refusal concerns the panel only: a healthy engine can still be talked to.
      return error.status > 0 ? "ready" : "unreachable";
    }
  }

  async readStats() {
    const answer = async () => this.records.merge(await getJson(this.records.path));
    this.data.stats = (await answer()) ?? (await answer());
  }

  // What was decided at start-up: models, plugins, effective features, memory.
  async readPlan() {
    const [models, plugins] = await Promise.all([getJson("v1/models"), getJson("v1/plugins")]);
    this.data.models = models.data ?? [];
    this.data.plugins = plugins.data ?? [];
    this.data.effective = plugins.effective ?? null;
  }

  // A server that is not healthy may still say how far it is, or that it gave up.
  async whyNotReady() {
    try {
      await this.readStats();
    } catch (error) {
      return error.status === 401 ? "locked" : "loading";
    }
    const state = stateOf(this.data.stats);
    return state === "ready" ? "loading" : state;
  }
}

function stateOf({ state }) {
  return NOT_READY.includes(state) ? state : "ready";
}
