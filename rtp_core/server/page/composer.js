// The message box: grows with its text; Enter sends, Shift+Enter breaks the line.

import { Images } from "./images.js";

/**
 * Calls `onSend(text, images)`, `onStop()`, and `onRecall()` for the last message back; the same
 * button sends and stops, so nothing moves.
 */
export class Composer {
  constructor({ onSend, onStop, onRecall }) {
    Object.assign(this, { onSend, onStop, onRecall });
    this.ready = false;
    this.busy = false;
    this.box = document.getElementById("prompt");
    this.button = document.getElementById("send");
    this.notice = document.getElementById("notice");
    this.images = new Images({
      onChange: () => this.changed(),
      onNotice: (text) => (this.notice.textContent = text),
    });
    document.getElementById("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.busy) this.onStop();
      else this.send();
    });
    this.box.addEventListener("input", () => this.changed());
    this.box.addEventListener("keydown", (event) => this.onKey(event));
    this.changed();
  }

  focus() {
    this.box.focus();
  }

  /** ready: the engine answers; busy: a reply is being written. */
  setState({ ready = this.ready, busy = this.busy }) {
    this.ready = ready;
    this.busy = busy;
    this.changed();
  }

  onKey(event) {
    if (event.key === "ArrowUp" && !this.box.value && this.onRecall()) return event.preventDefault();
    // During composition (Chinese, Japanese, …) Enter picks a candidate.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!this.busy) this.send();
  }

  send() {
    const text = this.box.value.trim();
    if (this.empty || !this.ready) return;
    this.box.value = "";
    this.onSend(text, this.images.release());
  }

  get empty() {
    return !this.box.value.trim() && !this.images.chosen.length;
  }

  changed() {
    this.notice.textContent = "";
    growToFit(this.box);
    this.button.dataset.mode = this.busy ? "stop" : "send";
    this.button.setAttribute("aria-label", this.busy ? "Stop" : "Send");
    this.button.title = this.busy ? "Stop (Esc)" : "Send (Enter)";
    // aria-disabled keeps the focus where it is when a reply ends; `send` checks again.
    const idle = !this.busy && (this.empty || !this.ready);
    this.button.setAttribute("aria-disabled", String(idle));
  }
}

/** Height of a textarea from its content; the style sheet caps it. */
export function growToFit(box) {
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + box.offsetHeight - box.clientHeight}px`;
}
