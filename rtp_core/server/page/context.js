// How much of the model's context the conversation fills: too long is refused, so say it before.

import { count, percent } from "./format.js";

const NEARLY_FULL = 0.9;

/** Shows tokens of the last reply and its prompt; nothing before there is one. */
export class ContextMeter {
  constructor(conversation) {
    this.conversation = conversation;
    this.limit = null; // tokens
    this.root = document.getElementById("context");
  }

  /** `models` are the cards of /v1/models, `chosen` an id, `fallback` the model of /v1/stats. */
  setLimit(models, chosen, fallback) {
    const card = models.find(({ id }) => id === chosen);
    this.limit = card?.max_model_len ?? fallback?.max_model_len ?? null;
    this.show();
  }

  show() {
    const used = usedBy(this.conversation.messages);
    this.root.hidden = !used || !this.limit;
    if (this.root.hidden) return;
    const full = used / this.limit;
    this.root.textContent = `Context ${percent(full)}`;
    this.root.title = `${count(used)} of ${count(this.limit)} tokens`;
    this.root.classList.toggle("bad", full >= NEARLY_FULL);
  }
}

function usedBy(messages) {
  const { stats } = messages.findLast(({ stats }) => stats?.prompt) ?? {};
  return stats ? stats.prompt + (stats.tokens ?? 0) : 0;
}
