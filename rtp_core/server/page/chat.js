// The chat panel: the log of messages, and what can be done with them.

import { Composer } from "./composer.js";
import { generate } from "./generation.js";
import { Reply, UserMessage } from "./message.js";
import { SettingsSheet } from "./settings.js";
import { setText } from "./dom.js";

const NEAR_BOTTOM_PX = 48;
const SAVE_EVERY_MS = 1000;

/** `onKey` opens the key dialog; `readModel` tells which model is chosen now. */
export class Chat {
  constructor(conversation, { onKey, readModel }) {
    this.conversation = conversation;
    this.onKey = onKey;
    this.readModel = readModel;
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
      onSend: (text) => this.ask(text),
      onStop: () => this.stop(),
    });
    this.listen();
    this.showAll();
  }

  get busy() {
    return this.abort !== null;
  }

  /** Sending is possible once the engine is ready. */
  setReady(ready) {
    this.composer.setState({ ready });
    this.empty.dataset.ready = String(ready);
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

  async ask(text) {
    if (this.busy) return;
    this.conversation.add({ role: "user", content: text });
    this.showLast();
    await this.reply();
  }

  async edit(message, text) {
    await this.stop();
    this.cutAt(message);
    await this.ask(text);
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
    if (message.role === "user") {
      return new UserMessage(message, (text) => this.edit(message, text));
    }
    const onRegenerate = () => this.regenerate(message);
    return new Reply(message, { onRegenerate, onKey: this.onKey });
  }

  updateChrome() {
    const none = this.conversation.messages.length === 0;
    this.empty.hidden = !none;
    this.clearButton.disabled = none;
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

/** At most one paint a frame, however fast tokens come. */
class Painter {
  constructor(paint) {
    this.paint = paint;
    this.frame = 0;
  }

  request() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this.now());
  }

  now() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.paint();
  }
}

function outcome({ state, stats, problem }) {
  if (state === "failed") return `${problem.title}. ${problem.remedy}`;
  if (state === "stopped") return "Stopped.";
  return stats.tokens === undefined ? "The reply is complete." : `Complete, ${stats.tokens} tokens.`;
}
