// The API key dialog. The key stays in this tab's sessionStorage and is sent to this server only.

import { apiKey, getJson, setApiKey } from "./api.js";
import { describe } from "./problems.js";
import { setText } from "./dom.js";

/** `onAccepted` runs after the server took the key. */
export class KeyDialog {
  constructor(onAccepted) {
    this.onAccepted = onAccepted;
    this.dialog = document.getElementById("key-dialog");
    this.field = document.getElementById("key");
    this.message = document.getElementById("key-message");
    document.getElementById("key-form").addEventListener("submit", (event) => {
      event.preventDefault(); // stays open until the server accepts the key
      this.tryKey(this.field.value.trim());
    });
    document.getElementById("key-cancel").addEventListener("click", () => this.dialog.close());
  }

  open() {
    if (this.dialog.open) return;
    setText(this.message, apiKey() ? "The server refused the key in use." : "");
    this.field.value = "";
    this.dialog.showModal();
  }

  async tryKey(key) {
    if (!key) return;
    setApiKey(key);
    try {
      await getJson("v1/models");
    } catch (error) {
      if (error.status === 401) return this.refuse();
      // While the engine loads the key cannot be checked; the connection finds out later.
      if (error.status !== 503) return setText(this.message, describe(error).title);
    }
    this.dialog.close();
    this.onAccepted();
  }

  refuse() {
    setApiKey("");
    setText(this.message, "The server refused this key. Check it and try again.");
    this.field.select();
  }
}
