// The chat panel: the log of messages, and what can be done with them.

import { Composer } from "./composer.js";
import { generate } from "./generation.js";
import { Reply, UserMessage } from "./message.js";
import { Painter } from "./painter.js";
import { SettingsSheet } from "./settings.js";
import { ContextMeter } from "./context.js";
import { setText } from "./dom.js";

const NEAR_BOTTOM_PX = 48;
const SAVE_EVERY_MS = 1000;

/**
 * `onKey` opens the key dialog, `onTimeline(id)` shows a request in the engine panel, and
 * `readModel` tells which model is chosen now.
 */
export class Chat {
  constructor(conversation, { onKey, onTimeline, readModel }) {
    this.conversation = conversation;
    Object.assign(this, { onKey, onTimeline, readModel });
    this.views = new Map(); // of the messages shown
    this.context = new ContextMeter(conversation);
    this.abort = null; // of the running reply
    this.finished = Promise.resolve();
    this.log = document.getElementById("log");
    this.list = document.getElementById("messages");
    this.empty = document.getElementById("empty");
    this.announcer = document.getElementById("announcer");
    this.toBottom = document.getElementById("to-bottom");
    this.clearButton = document.getElementById("clear");
    this.settings = new SettingsSheet(conversation);
    this.composer = new Composer({
      onSend: (text, images) => this.ask(text, images),
      onStop: () => this.stop(),
      onRecall: () => this.editLast(),
    });
    this.listen();
    this.showAll();
  }

  get busy() {
    return this.abort !== null;
  }

  /** Sending is possible once the engine is ready, images once it has an encoder for them. */
  update({ phase, stats, effective, models }) {
    const ready = phase === "ready";
    if (ready !== this.composer.ready) this.composer.setState({ ready });
    this.empty.dataset.ready = String(ready);
    this.composer.images.setFeatures(effective?.features ?? []);
    this.context.setLimit(models, this.readModel(), stats?.model);
    this.noteDrafts(stats?.requests ?? []);
  }

  // What speculation did for the last reply is known to the server only.
  noteDrafts(requests) {
    const reply = this.conversation.messages.at(-1);
    if (!reply?.stats?.id) return;
    const { speculation } = requests.find(({ id }) => id === reply.stats.id) ?? {};
    if (!speculation?.method || speculation.acceptance === reply.stats.drafts?.acceptance) return;
    reply.stats.drafts = speculation;
    this.views.get(reply)?.refresh();
  }

  listen() {
    this.following = true;
    this.log.addEventListener("scroll", () => this.noteScroll(), { passive: true });
    new ResizeObserver(() => this.follow()).observe(this.log); // the keyboard of a phone opens
    this.toBottom.addEventListener("click", () => this.scrollToEnd());
    this.clearButton.addEventListener("click", () => this.clear());
    for (const button of this.empty.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        if (this.composer.ready) this.ask(button.textContent);
      });
    }
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
      if (this.busy) this.stop();
      else if (this.settings.open) this.settings.show(false);
    });
    addEventListener("pagehide", () => this.conversation.save());
  }

  async ask(text, images = []) {
    if (this.busy) return;
    this.conversation.add({ role: "user", content: text, ...(images.length ? { images } : {}) });
    this.showLast();
    await this.reply();
  }

  async edit(message, text) {
    await this.stop();
    this.cutAt(message);
    await this.ask(text, message.images);
  }

  /** Edit the last message of the user; false when there is none. */
  editLast() {
    const last = this.conversation.messages.findLast(({ role }) => role === "user");
    if (!last || this.busy) return false;
    this.views.get(last).startEdit();
    return true;
  }

  async regenerate(message) {
    await this.stop();
    this.cutAt(message);
    await this.reply();
  }

  async clear() {
    await this.stop();
    this.conversation.truncate(0);
    this.showAll();
    this.announce("The chat was cleared.");
    this.composer.focus();
  }

  /** Closing the connection ends the request on the server; the text so far stays. */
  async stop() {
    this.abort?.abort();
    await this.finished;
  }

  async reply() {
    const body = this.conversation.requestBody(this.readModel());
    const reply = { role: "assistant", content: "", reasoning: "", state: "streaming", stats: {} };
    this.conversation.add(reply);
    const view = this.showLast();
    this.scrollToEnd();
    this.abort = new AbortController();
    this.composer.setState({ busy: true });
    this.announce("Writing a reply.");
    this.finished = this.run(reply, view, body);
    await this.finished;
  }

  async run(reply, view, body) {
    const painter = new Painter(() => this.paint(view));
    const began = performance.now();
    const ticker = setInterval(() => {
      reply.stats.elapsed = (performance.now() - began) / 1000;
      painter.request();
    }, 100);
    const saver = setInterval(() => this.conversation.save(), SAVE_EVERY_MS);
    await generate(reply, body, this.abort.signal, () => painter.request());
    clearInterval(ticker);
    clearInterval(saver);
    this.abort = null;
    this.composer.setState({ busy: false });
    this.conversation.save();
    this.context.show();
    painter.now();
    this.announce(outcome(reply));
  }

  paint(view) {
    view.refresh();
    this.follow();
  }

  cutAt(message) {
    this.conversation.truncate(this.conversation.messages.indexOf(message));
    this.showAll();
  }

  showAll() {
    this.list.replaceChildren();
    this.views.clear();
    for (const message of this.conversation.messages) this.list.append(this.view(message).root);
    this.updateChrome();
    this.scrollToEnd();
  }

  showLast() {
    const view = this.view(this.conversation.messages.at(-1));
    this.list.append(view.root);
    this.updateChrome();
    this.scrollToEnd();
    return view;
  }

  view(message) {
    const view = message.role === "user" ? this.userView(message) : this.replyView(message);
    this.views.set(message, view);
    return view;
  }

  userView(message) {
    return new UserMessage(message, (text) => this.edit(message, text));
  }

  replyView(message) {
    const { onKey, onTimeline } = this;
    return new Reply(message, { onRegenerate: () => this.regenerate(message), onKey, onTimeline });
  }

  updateChrome() {
    const none = this.conversation.messages.length === 0;
    this.empty.hidden = !none;
    this.clearButton.disabled = none;
    this.context.show();
  }

  // Follow the stream only while the reader is at the end; scrolling up lets go.
  noteScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.log;
    this.following = scrollHeight - scrollTop - clientHeight < NEAR_BOTTOM_PX;
    this.toBottom.hidden = this.following;
  }

  follow() {
    if (this.following) this.scrollToEnd();
    else this.noteScroll();
  }

  scrollToEnd() {
    this.log.scrollTop = this.log.scrollHeight;
    this.following = true;
    this.toBottom.hidden = true;
  }

  announce(text) {
    setText(this.announcer, text);
  }
}

function outcome({ state, stats, problem }) {
  if (state === "failed") return `${problem.title}. ${problem.remedy}`;
  if (state === "stopped") return "Stopped.";
  return stats.tokens === undefined ? "The reply is complete." : `Complete, ${stats.tokens} tokens.`;
}
