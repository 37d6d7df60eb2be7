// Pictures for the next message: picked, pasted or dropped. Off without an encoder, and says why.

import { el, icon } from "./dom.js";

const TYPES = ["image/png", "image/jpeg", "image/webp", "image/gif"];
const MAX_BYTES = 20 * 2 ** 20; // of all together; base64 makes them a third larger
const MAX_IMAGES = 8;

/** Holds the chosen images as [{name, url}]; `onNotice(text)` tells why one was not taken. */
export class Images {
  constructor({ onChange, onNotice }) {
    this.onChange = onChange;
    this.onNotice = onNotice;
    this.chosen = [];
    this.reason = "the engine is not ready"; // why images are off; null when they are on
    this.button = document.getElementById("attach");
    this.field = document.getElementById("attach-field");
    this.list = document.getElementById("attachments");
    this.zone = document.getElementById("chat");
    this.button.addEventListener("click", () => {
      if (this.reason === null) this.field.click();
      else this.refuse();
    });
    this.field.addEventListener("change", () => {
      this.take(this.field.files);
      this.field.value = ""; // so that the same file can be chosen again
    });
    this.listen();
  }

  listen() {
    document.getElementById("prompt").addEventListener("paste", (event) => {
      if (!event.clipboardData.files.length) return;
      event.preventDefault();
      this.take(event.clipboardData.files);
    });
    this.zone.addEventListener("dragover", (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = this.reason === null ? "copy" : "none";
      this.zone.dataset.drop = this.reason === null ? "Drop images here" : this.explanation;
    });
    this.zone.addEventListener("dragleave", (event) => {
      if (!this.zone.contains(event.relatedTarget)) delete this.zone.dataset.drop;
    });
    // Outside the chat too: a missed drop would leave the page and show the file.
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      delete this.zone.dataset.drop;
      const inside = this.zone.contains(event.target);
      if (inside && event.dataTransfer.files.length) this.take(event.dataTransfer.files);
    });
  }

  /** What `/v1/plugins` says: images are on once an encoder fills its role. */
  setFeatures(features) {
    const encoders = features.filter(({ role }) => role === "encoder");
    this.reason = encoders.some(({ on }) => on) ? null : whyOff(encoders);
    const off = this.reason !== null;
    this.button.setAttribute("aria-disabled", String(off)); // stays reachable, to explain itself
    this.button.title = off ? this.explanation : "Add images (or paste, or drop them here)";
    this.button.setAttribute("aria-label", off ? this.explanation : "Add images");
    if (off && this.chosen.length) this.set([]);
  }

  get explanation() {
    return `Images are off: ${this.reason}.`;
  }

  refuse() {
    this.onNotice(this.explanation);
  }

  async take(files) {
    if (this.reason !== null) return this.refuse();
    for (const file of files) {
      const problem = this.problemOf(file);
      if (problem) this.onNotice(`${file.name || "The file"} was not added: ${problem}.`);
      else await this.add(file);
    }
  }

  problemOf(file) {
    if (!TYPES.includes(file.type)) return "only PNG, JPEG, WebP and GIF images can be sent";
    if (this.chosen.length >= MAX_IMAGES) return `at most ${MAX_IMAGES} images fit in a message`;
    const size = this.chosen.reduce((sum, one) => sum + one.size, file.size);
    return size > MAX_BYTES ? "images of a message may be 20 MiB together" : null;
  }

  async add(file) {
    const url = await readAsUrl(file).catch(() => null);
    if (url === null) this.onNotice(`${file.name} cannot be read.`);
    else this.set([...this.chosen, { name: file.name || "image", url, size: file.size }]);
  }

  /** The chosen images, which are no longer chosen afterwards. */
  release() {
    const images = this.chosen.map(({ name, url }) => ({ name, url }));
    this.set([]);
    return images;
  }

  set(chosen) {
    this.chosen = chosen;
    this.list.replaceChildren(...chosen.map((image) => this.thumbnail(image)));
    this.list.hidden = !chosen.length;
    this.onChange();
  }

  thumbnail(image) {
    const remove = () => {
      this.set(this.chosen.filter((one) => one !== image));
      document.getElementById("prompt").focus();
    };
    const label = `Remove ${image.name}`;
    const button = el("button", { type: "button", "aria-label": label, click: remove }, icon("close"));
    return el("li", {}, el("img", { src: image.url, alt: image.name, title: image.name }), button);
  }
}

function whyOff(encoders) {
  const whole = encoders.filter(({ offer }) => !offer).map(({ reason }) => reason);
  const offers = encoders.filter(({ offer }) => offer).map(({ offer, reason }) => `${offer} is ${reason}`);
  return [...whole, ...offers].join("; ") || "this engine has no image encoder";
}

function readAsUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}
