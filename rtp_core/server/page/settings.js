// The settings sheet above the composer: system prompt, sampling, and the page's theme.

import { recall, remember } from "./storage.js";

const SHORT_NAMES = {
  temperature: "temp",
  top_p: "top-p",
  top_k: "top-k",
  min_p: "min-p",
  max_tokens: "max",
  seed: "seed",
  frequency_penalty: "freq",
  presence_penalty: "pres",
  repetition_penalty: "rep",
};
const NUMBERS = Object.keys(SHORT_NAMES);
const MAX_STOPS = 4;

/** Binds the form of index.html to the conversation's settings. */
export class SettingsSheet {
  constructor(conversation) {
    this.conversation = conversation;
    this.sheet = document.getElementById("settings");
    this.form = document.getElementById("settings-form");
    this.toggle = document.getElementById("settings-toggle");
    this.summary = document.getElementById("settings-summary");
    this.fillForm();
    this.form.addEventListener("input", () => this.read());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.show(false);
    });
    this.form.addEventListener("reset", () => setTimeout(() => this.read())); // after the reset
    this.toggle.addEventListener("click", () => this.show(this.sheet.hidden));
    bindTheme(document.getElementById("theme"));
  }

  get open() {
    return !this.sheet.hidden;
  }

  /** Open or close; focus follows, so that the keyboard never lands in a hidden form. */
  show(open) {
    if (!open && !this.form.reportValidity()) return;
    this.sheet.hidden = !open;
    this.toggle.setAttribute("aria-expanded", String(open));
    (open ? this.form.elements.system : this.toggle).focus();
  }

  fillForm() {
    const { elements } = this.form;
    const { settings } = this.conversation;
    for (const name of ["system", ...NUMBERS]) {
      // defaultValue stays empty, so that "Reset" means "the server's defaults".
      elements[name].value = settings[name] ?? "";
    }
    elements.stop.value = (settings.stop ?? []).join("\n");
    this.describe();
  }

  // Only valid values are kept: an invalid one is marked by the browser and not sent.
  read() {
    const { elements } = this.form;
    const settings = {};
    if (elements.system.value.trim()) settings.system = elements.system.value;
    for (const name of NUMBERS) {
      const field = elements[name];
      if (field.value !== "" && field.validity.valid) settings[name] = field.valueAsNumber;
    }
    const stops = elements.stop.value.split("\n").filter(Boolean);
    const many = stops.length > MAX_STOPS;
    elements.stop.setCustomValidity(many ? `At most ${MAX_STOPS} stop sequences.` : "");
    if (stops.length && !many) settings.stop = stops;
    this.conversation.setSettings(settings);
    this.describe();
  }

  describe() {
    const { system, stop, ...sampling } = this.conversation.settings;
    const parts = Object.entries(sampling).map(([name, value]) => `${SHORT_NAMES[name]} ${value}`);
    if (system) parts.unshift("system prompt");
    if (stop) parts.push(`${stop.length} stop`);
    this.summary.textContent = parts.length ? parts.join(" · ") : "server defaults";
    this.summary.title = this.summary.textContent;
  }
}

// Read again by theme.js before the first paint.
function bindTheme(field) {
  field.value = recall("theme", "system");
  field.addEventListener("change", () => {
    const chosen = field.value === "system" ? null : field.value;
    remember("theme", chosen);
    if (chosen) document.documentElement.dataset.theme = chosen;
    else delete document.documentElement.dataset.theme;
  });
}
