// The top bar and the banner: which model, and whether it answers.

import { el, renderOnChange, setShare, setText } from "./dom.js";
import { bytes, duration, ratio } from "./format.js";

const LABELS = {
  connecting: "Connecting",
  loading: "Loading",
  ready: "Ready",
  draining: "Draining",
  broken: "Broken",
  locked: "Locked",
  unreachable: "Offline",
};

/** Shows the connection's reports; `model` is the id to send requests to. */
export class StatusBar {
  constructor({ onKey }) {
    this.model = null;
    this.pill = document.getElementById("pill");
    this.pillText = document.getElementById("pill-text");
    this.modelBox = document.getElementById("model");
    this.banner = document.getElementById("banner");
    this.bannerText = document.getElementById("banner-text");
    this.progress = document.getElementById("progress");
    this.keyButton = document.getElementById("banner-key");
    this.keyButton.addEventListener("click", onKey);
  }

  update(report) {
    const { phase, models, stats } = report;
    this.pill.dataset.phase = phase;
    setText(this.pillText, LABELS[phase]);
    this.showModels(models.map(({ id }) => id), stats?.model?.name);
    this.showBanner(report);
  }

  // One model is a name; several are a choice.
  showModels(ids, name) {
    const known = ids.length ? ids : [name].filter(Boolean);
    if (!known.includes(this.model)) this.model = known[0] ?? null;
    renderOnChange(this.modelBox, known, () => {
      if (known.length < 2) return el("span", { title: known[0] }, known[0] ?? "no model yet");
      const change = (event) => (this.model = event.target.value);
      const options = known.map((id) => el("option", { selected: id === this.model }, id));
      return el("select", { "aria-label": "Model", change }, options);
    });
    document.title = this.model ? `${this.model} · rtp` : "rtp";
  }

  showBanner(report) {
    const text = bannerText(report);
    this.banner.hidden = !text;
    this.banner.dataset.phase = report.phase;
    setText(this.bannerText, text);
    this.keyButton.hidden = report.phase !== "locked";
    this.progress.hidden = report.phase !== "loading";
    this.showProgress(report);
  }

  // The share read so far where the server tells it, else a moving bar.
  showProgress({ stats, effective }) {
    const share = ratio(stats?.engine?.load_bytes || null, effective?.memory?.weights_bytes);
    this.progress.toggleAttribute("data-unknown", share === null);
    setShare(this.progress.firstElementChild, share ?? 0.3);
  }
}

function bannerText({ phase, waited, stats }) {
  switch (phase) {
    case "loading": {
      const size = stats?.engine?.load_bytes;
      const read = size ? `, ${bytes(size)} read` : "";
      const seconds = duration(Math.floor(stats?.uptime_s ?? waited) || 1);
      return `The model is loading (${seconds}${read}). You can write already; sending starts when it is ready.`;
    }
    case "draining":
      return "The server is shutting down: running answers are finished, new ones are refused.";
    case "broken":
      return "The engine has stopped. Its log says why; start the server again.";
    case "locked":
      return "This server needs an API key.";
    case "unreachable":
      return "No answer from the server. Check that it is running; this page keeps trying.";
    default:
      return "";
  }
}
