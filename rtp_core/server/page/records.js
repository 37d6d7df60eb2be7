// What /v1/stats has said so far: each poll asks only for what is new since the one before.

const MAX_SAMPLES = 600;
const MAX_ROWS = 200;
const OVERLAP_S = 2; // a sample and a request of the same moment may come in two answers

/** History and requests, put together from the answers. */
export class Records {
  constructor() {
    this.forget();
  }

  /** Another server may answer next: ask it for everything. */
  forget() {
    this.history = [];
    this.requests = [];
    this.uptime = 0;
  }

  get path() {
    const newest = this.history.at(-1);
    return newest ? `v1/stats?since=${newest.t_unix_s - OVERLAP_S}` : "v1/stats";
  }

  /** The answer with all that is known; null when the server has started anew: ask again. */
  merge(stats) {
    if (stats.uptime_s < this.uptime) {
      this.forget();
      return null;
    }
    this.uptime = stats.uptime_s ?? 0;
    this.history = joined(this.history, stats.history ?? []).slice(-MAX_SAMPLES);
    this.requests = updated(this.requests, stats.requests ?? []).slice(0, MAX_ROWS);
    return { ...stats, history: this.history, requests: this.requests };
  }
}

function joined(old, fresh) {
  const first = fresh[0]?.t_unix_s ?? Infinity;
  return [...old.filter(({ t_unix_s: time }) => time < first), ...fresh];
}

// Newest first. One that ran is either in the answer again or was lost with its engine.
function updated(old, fresh) {
  const named = new Map(fresh.map((row) => [row.id, row]));
  const kept = old.filter((row) => !isRunning(row) && !named.has(row.id));
  return [...named.values(), ...kept].sort((a, b) => b.started_unix_s - a.started_unix_s);
}

/** True until the request's last token. */
export function isRunning({ state = "done" }) {
  return state !== "done";
}
