// How one message looks: a user's bubble, or a reply with its measurements.

import { growToFit } from "./composer.js";
import { copyButton } from "./copy.js";
import { el, icon, renderOnChange, setText } from "./dom.js";
import { duration } from "./format.js";
import { MarkdownView } from "./markdown.js";
import { final, live } from "./measurements.js";

/** A user's message; `onEdit(text)` sends a changed version. */
export class UserMessage {
  constructor(message, onEdit) {
    this.message = message;
    this.onEdit = onEdit;
    this.body = el("div", { class: "bubble", dir: "auto" }, pictures(message.images), message.content);
    this.editButton = action("edit", "Edit", () => this.startEdit());
    const copy = copyButton(() => message.content, "Copy message");
    this.footer = el("footer", {}, el("span", { class: "actions" }, copy, this.editButton));
    this.root = el("article", { class: "message user", "aria-label": "You" });
    this.root.append(this.body, this.footer);
  }

  startEdit() {
    const box = el("textarea", { "aria-label": "Edit message", rows: 1, dir: "auto" });
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
    this.root.replaceChildren(this.body, this.footer);
    this.editButton.focus();
  }
}

function submitButton() {
  return el("button", { type: "submit", class: "primary" }, "Save and send");
}

// One that was too large to be remembered over a reload is a name.
function pictures(images = []) {
  if (!images.length) return "";
  const shown = images.map(({ name, url }) =>
    url ? el("img", { src: url, alt: name, title: name }) : el("em", {}, `${name} (not kept)`),
  );
  return el("div", { class: "pictures" }, shown);
}

/**
 * A reply, kept in step with its message object by `refresh`. `handlers` = {onRegenerate, onKey,
 * onTimeline(id)}.
 */
export class Reply {
  constructor(message, handlers) {
    this.message = message;
    this.handlers = handlers;
    this.text = new MarkdownView();
    this.thought = el("div", { class: "thought", dir: "auto" });
    this.thinkingTitle = el("summary");
    this.thinking = el("details", { hidden: true }, this.thinkingTitle, this.thought);
    this.calls = el("div", { class: "calls", hidden: true });
    this.problem = el("div", { class: "problem", role: "alert", hidden: true });
    this.numbers = el("dl", { class: "numbers" });
    this.footer = el("footer", {}, this.numbers, this.actions());
    this.root = el("article", { class: "message reply", "aria-label": "Model" });
    this.root.append(this.thinking, this.text.root, this.calls, this.problem, this.footer);
    this.refresh();
  }

  actions() {
    const { message, handlers } = this;
    this.again = el("span");
    this.copy = copyButton(() => message.content, "Copy reply");
    this.timeline = action("time", "Timeline", () => handlers.onTimeline(message.stats.id));
    this.timeline.title = "Show this request in the engine panel";
    const regenerate = action("retry", this.again, handlers.onRegenerate);
    regenerate.classList.add("regenerate"); // shown on the last reply only
    return el("span", { class: "actions" }, this.copy, this.timeline, regenerate);
  }

  /** Show the message as it is now. */
  refresh() {
    const { content, calls = [], state, problem, stats } = this.message;
    this.root.dataset.state = state;
    this.root.setAttribute("aria-busy", String(state === "streaming")); // read aloud once whole
    this.showThinking();
    const nothing = state === "done" && !calls.length;
    this.text.update(content || (nothing ? "*(The model answered with no text.)*" : ""));
    this.calls.hidden = !calls.length;
    renderOnChange(this.calls, calls, () => calls.map(toolCall));
    this.problem.hidden = !problem;
    if (problem && !this.problem.childElementCount) this.showProblem(problem);
    this.copy.hidden = !content;
    this.timeline.hidden = !stats?.id;
    setText(this.again, state === "failed" ? "Try again" : "Regenerate");
    this.showNumbers();
  }

  // Open while there is nothing else to read; then folded, until the reader opens it.
  showThinking() {
    const { content, reasoning, state, stats } = this.message;
    this.thinking.hidden = !reasoning;
    if (!reasoning) return;
    setText(this.thought, reasoning);
    const thinks = state === "streaming" && !content;
    if (thinks !== this.thinks) this.thinking.open = thinks;
    this.thinks = thinks;
    const past = stats?.thought ? `Thought for ${duration(stats.thought)}` : "Thinking";
    setText(this.thinkingTitle, thinks ? "Thinking…" : past);
  }

  showProblem({ title, detail, remedy, needsKey }) {
    const { onKey } = this.handlers;
    const key = el("button", { type: "button", click: onKey }, "Enter API key");
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

function action(picture, label, click) {
  return el("button", { type: "button", class: "quiet small", click }, icon(picture), label);
}
