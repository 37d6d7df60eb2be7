// The numbers below a reply: while it is written, and once it is there.

import { el } from "./dom.js";
import { count, duration, percent, rate } from "./format.js";

const FINISH_HELP = {
  stop: "The model ended its answer.",
  tool_calls: "The model called a tool and waits for its result.",
  length: "The answer reached “Max tokens” or the end of the context.",
  stopped: "You stopped it. The server ended the request and freed its memory.",
};

/** Definitions of a reply that is being written. */
export function live({ ttft, elapsed = 0, speed, tokens }) {
  const doing = ttft === undefined ? "Waiting for the first token" : "Writing";
  return [
    number(doing, `${elapsed.toFixed(1)} s`),
    speed ? number("Speed", `${rate(speed)} tok/s`) : "",
    tokens ? number("Tokens", count(tokens)) : "",
  ];
}

/** Definitions of a reply that has ended. */
export function final(stats, state) {
  const { speed, ttft, tokens, prompt, drafts } = stats;
  const cached = stats.cached ? `${count(stats.cached)} of ${count(prompt)}` : "0";
  const finish = state === "stopped" ? "stopped" : stats.finish;
  const counted = tokens !== undefined;
  return [
    speed ? number("Speed", `${rate(speed)} tok/s`) : "",
    ttft !== undefined ? number("First token", duration(ttft)) : "",
    counted ? number("Tokens", count(tokens)) : "",
    counted ? number("Cached", cached, "Prompt tokens found in the cache") : "",
    drafts ? number("Drafts", draftText(drafts), "Method, and share of its drafts accepted") : "",
    finish ? number("Finish", finish, FINISH_HELP[finish]) : "",
  ];
}

function draftText({ method, acceptance }) {
  return acceptance == null ? method : `${method} ${percent(acceptance)}`;
}

function number(name, value, help = null) {
  return el("div", { title: help }, el("dt", {}, name), el("dd", {}, value));
}
