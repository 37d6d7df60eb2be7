// Chat, engine, or both: side by side where there is room, else one at a time.

import { recall, remember } from "./storage.js";

const WIDE = matchMedia("(min-width: 960px)");

/** Binds the view buttons and remembers the choice; `onChange` runs after each change. */
export class Views {
  constructor(onChange) {
    this.onChange = onChange;
    this.buttons = [...document.querySelectorAll("[data-view-button]")];
    this.chosen = recall("view", "split");
    for (const button of this.buttons) {
      button.addEventListener("click", () => this.choose(button.dataset.viewButton));
    }
    WIDE.addEventListener("change", () => this.apply());
    this.apply();
  }

  choose(view) {
    this.chosen = view;
    remember("view", view);
    this.apply();
  }

  /** The view after this one, as the buttons are shown. */
  next() {
    const shown = this.buttons.filter((button) => button.checkVisibility());
    const place = shown.findIndex((button) => button.ariaPressed === "true");
    this.choose(shown[(place + 1) % shown.length].dataset.viewButton);
  }

  apply() {
    const view = this.chosen === "split" && !WIDE.matches ? "chat" : this.chosen;
    document.body.dataset.view = view;
    document.getElementById("chat").hidden = view === "engine";
    document.getElementById("engine").hidden = view === "chat";
    for (const button of this.buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.viewButton === view));
    }
    this.onChange();
  }
}
