// The settings sheet above the composer: system prompt and sampling.

const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];
const SHORT_NAMES = { temperature: "temp", top_p: "top-p", max_tokens: "max", seed: "seed" };

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
    for (const name of ["system", ...NUMBERS]) {
      // defaultValue stays empty, so that "Reset" means "the server's defaults".
      elements[name].value = this.conversation.settings[name] ?? "";
    }
    this.describe();
  }

  // Only valid numbers are kept: an invalid one is marked by the browser and not sent.
  read() {
    const { elements } = this.form;
    const settings = {};
    if (elements.system.value.trim()) settings.system = elements.system.value;
    for (const name of NUMBERS) {
      const field = elements[name];
      if (field.value !== "" && field.validity.valid) settings[name] = field.valueAsNumber;
    }
    this.conversation.setSettings(settings);
    this.describe();
  }

  describe() {
    const { system, ...sampling } = this.conversation.settings;
    const parts = Object.entries(sampling).map(([name, value]) => `${SHORT_NAMES[name]} ${value}`);
    if (system) parts.unshift("system prompt");
    this.summary.textContent = parts.length ? parts.join(" · ") : "server defaults";
  }
}
