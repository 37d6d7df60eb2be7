// Keys that work everywhere on the page, and the dialog that lists them.

const COMMAND = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl";

/** `actions` = {".": open settings, "\\": next view}: run with Ctrl or ⌘ and that key. */
export class Shortcuts {
  constructor(actions) {
    this.dialog = document.getElementById("shortcuts");
    this.actions = { ...actions, "/": () => this.toggle() };
    for (const key of this.dialog.querySelectorAll("[data-command]")) key.textContent = COMMAND;
    document.getElementById("shortcuts-open").addEventListener("click", () => this.toggle());
    document.getElementById("shortcuts-close").addEventListener("click", () => this.dialog.close());
    // A click on the backdrop has the dialog itself as its target.
    this.dialog.addEventListener("click", ({ target }) => {
      if (target === this.dialog) this.dialog.close();
    });
    addEventListener("keydown", (event) => this.onKey(event));
  }

  onKey(event) {
    const action = this.actions[event.key];
    if (!action || !(event.ctrlKey || event.metaKey) || event.altKey) return;
    const open = document.querySelector("dialog[open]");
    if (open && open !== this.dialog) return;
    event.preventDefault();
    if (open && event.key !== "/") open.close();
    action();
  }

  toggle() {
    if (this.dialog.open) this.dialog.close();
    else this.dialog.showModal();
  }
}
