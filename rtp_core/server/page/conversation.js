// The messages of this tab and the settings they are sent with.

import { recall, remember } from "./storage.js";

/**
 * Messages are {role: "user", content, images} and {role: "assistant", content, reasoning,
 * state, stats, problem}, state one of "streaming", "done", "stopped", "failed". An image is
 * {name, url}; without `url` it was too large to be remembered over a reload.
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
    if (!remember("messages", this.messages)) remember("messages", this.messages.map(withoutImages));
  }

  /** Body of a chat completion for what was said so far; unset fields keep server defaults. */
  requestBody(model) {
    const { system, ...sampling } = this.settings;
    const messages = this.messages.map(turn).filter(({ content }) => content.length);
    if (system) messages.unshift({ role: "system", content: system });
    return { ...(model ? { model } : {}), messages, ...sampling };
  }
}

function turn({ role, content, images = [] }) {
  const pictures = images
    .filter(({ url }) => url)
    .map(({ url }) => ({ type: "image_url", image_url: { url } }));
  if (!pictures.length) return { role, content };
  return { role, content: [...pictures, ...(content ? [{ type: "text", text: content }] : [])] };
}

function withoutImages(message) {
  if (!message.images) return message;
  return { ...message, images: message.images.map(({ name }) => ({ name })) };
}
