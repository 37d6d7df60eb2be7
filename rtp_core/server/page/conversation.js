// The messages of this tab and the settings they are sent with.

import { recall, remember } from "./storage.js";

const SAMPLING_FIELDS = ["temperature", "top_p", "max_tokens", "seed"];

/**
 * Messages are {role: "user", content} and {role: "assistant", content, reasoning, state,
 * stats, problem}, state one of "streaming", "done", "stopped", "failed".
 */
export class Conversation {
  constructor() {
    this.messages = recall("messages", []);
    this.settings = recall("settings", {});
    for (const message of this.messages) {
      if (message.state === "streaming") message.state = "stopped"; // the page was reloaded
    }
  }

  add(message) {
    this.messages.push(message);
    this.save();
    return message;
  }

  /** Drop the message at `index` and all after it. */
  truncate(index) {
    this.messages.length = index;
    this.save();
  }

  setSettings(settings) {
    this.settings = settings;
    remember("settings", settings);
  }

  save() {
    remember("messages", this.messages);
  }

  /** Body of a chat completion for what was said so far; unset fields keep server defaults. */
  requestBody(model) {
    const { system, ...sampling } = this.settings;
    const messages = this.messages
      .filter(({ content }) => content)
      .map(({ role, content }) => ({ role, content }));
    if (system) messages.unshift({ role: "system", content: system });
    const body = model ? { model, messages } : { messages };
    for (const name of SAMPLING_FIELDS) {
      if (sampling[name] !== undefined) body[name] = sampling[name];
    }
    return body;
  }
}
