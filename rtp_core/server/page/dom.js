// Building DOM without markup strings: every text passes through a text node, so nothing
// a model or a server says can become an element.

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";

/** HTML element. A function value is a listener; null, undefined and false are left out. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** SVG element, same conventions. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG_NAMESPACE, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== false));
  return node;
}

/** Write only on change, so that a selection or a screen reader is not disturbed each second. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Width as a share of the parent. Through the CSSOM: the policy forbids style attributes. */
export function setShare(node, share) {
  node.style.width = `${(100 * Math.min(1, Math.max(0, share || 0))).toFixed(2)}%`;
}

/** Call `build` into `parent` only when `value` differs from the last one shown there. */
export function renderOnChange(parent, value, build) {
  const signature = JSON.stringify(value);
  if (parent.renderedFrom === signature) return;
  parent.renderedFrom = signature;
  parent.replaceChildren(...[build(value)].flat());
}

const ICONS = {
  copy: "M5.5 5.5h8v8h-8zM3 10.5H2.5v-8h8V3",
  check: "M3 8.5l3.5 3.5L13 4.5",
  close: "M4 4l8 8M12 4l-8 8",
  time: "M8 4.5V8l2.5 1.5M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2",
  edit: "M10.5 3l2.5 2.5L6 12.5l-3 .5.5-3z",
  retry: "M13 8a5 5 0 1 1-1.5-3.5M13 2.5V5h-2.5",
};

/** Decorative 16 px line icon; the button around it carries the label. */
export function icon(name) {
  const shape = svg("path", { d: ICONS[name] });
  return svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, shape);
}
