// How one message looks: a user's bubble, or a reply with its measurements.

import { growToFit } from "./composer.js";
import { el, icon, renderOnChange, setText } from "./dom.js";
import { count, duration, rate } from "./format.js";
import { copyButton, MarkdownView } from "./markdown.js";

const FINISH_HELP = {
  stop: "The model ended its answer.",
  tool_calls: "The model called a tool and waits for its result.",
  length: "The answer reached “Max tokens” or the end of the context.",
  stopped: "You stopped it. The server ended the request and freed its memory.",
};

/** A user's message; `onEdit(text)` sends a changed version. */
export class UserMessage {
  constructor(message, onEdit) {
    this.message = message;
    this.onEdit = onEdit;
    this.text = el("div", { class: "bubble" }, message.content);
    this.editButton = action("edit", "Edit", () => this.startEdit());
    this.footer = el("footer", {}, el("span", { class: "actions" }, this.editButton));
    this.root = el("article", { class: "message user", "aria-label": "You" });
    this.root.append(this.text, this.footer);
  }

  startEdit() {
    const box = el("textarea", { "aria-label": "Edit message", rows: 1 });
    box.value = this.message.content;
    const form = el("form", { class: "edit", submit: (event) => this.finishEdit(event, box) });
    const cancel = el("button", { type: "button", click: () => this.endEdit() }, "Cancel");
    form.append(box, el("div", { class: "row" }, cancel, submitButton()));
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation(); // Esc here ends the edit, not a running reply
        this.endEdit();
      } else if (event.key === "Enter" && event.target === box && !event.shiftKey) {
        if (!event.isComposing) this.finishEdit(event, box);
      }
    });
    box.addEventListener("input", () => growToFit(box));
    this.root.replaceChildren(form);
    growToFit(box);
    box.focus();
  }

  finishEdit(event, box) {
    event.preventDefault();
    const text = box.value.trim();
    if (text) this.onEdit(text);
  }

  endEdit() {
    this.root.replaceChildren(this.text, this.footer);
    this.editButton.focus();
  }
}

function submitButton() {
  return el("button", { type: "submit", class: "primary" }, "Save and send");
}

/** A reply, kept in step with its message object by `refresh`. */
export class Reply {
  constructor(message, { onRegenerate, onKey }) {
    this.message = message;
    this.onKey = onKey;
    this.text = new MarkdownView();
    this.thought = el("div", { class: "thought" });
    this.thinking = el("details", { hidden: true }, el("summary", {}, "Thinking"), this.thought);
    this.calls = el("div", { class: "calls", hidden: true });
    this.problem = el("div", { class: "problem", role: "alert", hidden: true });
    this.numbers = el("dl", { class: "numbers" });
    this.again = el("span");
    this.copy = el("span", {}, copyButton(() => message.content, "Copy reply"));
    const regenerate = action("retry", this.again, onRegenerate);
    regenerate.classList.add("regenerate"); // shown on the last reply only
    const actions = el("span", { class: "actions" }, this.copy, regenerate);
    this.footer = el("footer", {}, this.numbers, actions);
    this.root = el("article", { class: "message reply", "aria-label": "Model" });
    this.root.append(this.thinking, this.text.root, this.calls, this.problem, this.footer);
    this.refresh();
  }

  /** Show the message as it is now. */
  refresh() {
    const { content, reasoning, calls = [], state, problem } = this.message;
    const streaming = state === "streaming";
    this.root.dataset.state = state;
    this.root.setAttribute("aria-busy", String(streaming)); // read aloud once it is whole
    this.thinking.hidden = !reasoning;
    if (reasoning) setText(this.thought, reasoning);
    if (streaming) this.thinking.open = Boolean(reasoning) && !content;
    const nothing = state === "done" && !calls.length;
    this.text.update(content || (nothing ? "*(The model answered with no text.)*" : ""));
    this.calls.hidden = !calls.length;
    renderOnChange(this.calls, calls, () => calls.map(toolCall));
    this.problem.hidden = !problem;
    if (problem && !this.problem.childElementCount) this.showProblem(problem);
    this.copy.hidden = !content;
    setText(this.again, state === "failed" ? "Try again" : "Regenerate");
    this.showNumbers();
  }

  showProblem({ title, detail, remedy, needsKey }) {
    const key = el("button", { type: "button", click: this.onKey }, "Enter API key");
    const parts = [el("strong", {}, title), el("p", {}, detail), el("p", {}, remedy)];
    this.problem.append(...parts, needsKey ? key : "");
  }

  showNumbers() {
    const { stats = {}, state } = this.message;
    this.numbers.replaceChildren(...(state === "streaming" ? live(stats) : final(stats, state)));
  }
}

function toolCall({ name, arguments: text }) {
  const label = el("figcaption", {}, "Called ", el("code", {}, name));
  return el("figure", { class: "call" }, label, el("pre", {}, readable(text)));
}

// Arguments that are still coming are shown as they are.
function readable(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function live({ ttft, elapsed = 0, speed, tokens }) {
  const doing = ttft === undefined ? "Waiting for the first token" : "Writing";
  return [
    number(doing, `${elapsed.toFixed(1)} s`),
    speed ? number("Speed", `${rate(speed)} tok/s`) : "",
    tokens ? number("Tokens", count(tokens)) : "",
  ];
}

function final(stats, state) {
  const { speed, ttft, tokens, prompt } = stats;
  const cached = stats.cached ? `${count(stats.cached)} of ${count(prompt)}` : "0";
  const finish = state === "stopped" ? "stopped" : stats.finish;
  const counted = tokens !== undefined;
  return [
    speed ? number("Speed", `${rate(speed)} tok/s`) : "",
    ttft !== undefined ? number("First token", duration(ttft)) : "",
    counted ? number("Tokens", count(tokens)) : "",
    counted ? number("Cached", cached, "Prompt tokens found in the cache") : "",
    finish ? number("Finish", finish, FINISH_HELP[finish]) : "",
  ];
}

function number(name, value, help = null) {
  return el("div", { title: help }, el("dt", {}, name), el("dd", {}, value));
}

function action(picture, label, click) {
  return el("button", { type: "button", class: "quiet small", click }, icon(picture), label);
}
