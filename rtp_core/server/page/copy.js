// Copying to the clipboard, also where the browser withholds its newer interface (plain http).

import { el, icon } from "./dom.js";

const SHOWN_MS = 1500;

/** Button that copies what `read` returns and says whether it could. */
export function copyButton(read, label) {
  const button = el("button", { type: "button", class: "quiet small", "aria-label": label });
  const rest = () => {
    button.replaceChildren(icon("copy"), "Copy");
    button.setAttribute("aria-label", label);
  };
  button.addEventListener("click", async () => {
    const done = await copy(read(), button);
    button.replaceChildren(icon(done ? "check" : "copy"), done ? "Copied" : "Not allowed");
    button.setAttribute("aria-label", done ? "Copied" : "The browser did not allow copying");
    setTimeout(rest, SHOWN_MS);
  });
  rest();
  return button;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text, button);
  }
}

// The old way: select it in a field and let the browser copy the selection.
function copySelected(text, button) {
  const field = el("textarea", { class: "hidden-visually", "aria-hidden": "true", readonly: true });
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  button.focus();
  return done;
}
