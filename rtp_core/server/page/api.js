// The server's HTTP interface: relative to this file, so that any root path works.

import { serverSentEvents } from "./sse.js";
import { recall, remember } from "./storage.js";

const BASE = new URL("../", import.meta.url);
const POLL_TIMEOUT_MS = 10000;

/** A refusal by the server (status >= 400), a failure inside a stream, or no answer (status 0). */
export class ApiError extends Error {
  constructor(status, { message, code = null, param = null } = {}, retryAfter = null) {
    super(message || `HTTP status ${status}`);
    this.status = status;
    this.code = code;
    this.param = param;
    this.retryAfter = retryAfter;
  }
}

/** API key of this tab; "" when none was given. */
export function apiKey() {
  return recall("key", "");
}

export function setApiKey(key) {
  remember("key", key || null);
}

/** GET a JSON document. Throws ApiError. */
export async function getJson(path) {
  const response = await send(path, { signal: AbortSignal.timeout(POLL_TIMEOUT_MS) });
  return response.json();
}

/** True when the engine answers, false while it loads or is broken. Throws ApiError(0). */
export async function isHealthy() {
  const signal = AbortSignal.timeout(POLL_TIMEOUT_MS);
  const response = await fetch(new URL("health", BASE), { signal, cache: "no-store" }).catch(
    unreachable,
  );
  return response.ok;
}

/**
 * Chunks of a streamed chat completion, parsed. Aborting the signal closes the connection,
 * which makes the server end the request. `onOpen` is told the request's id, under which
 * /v1/stats lists it. Throws ApiError, or AbortError when aborted.
 */
export async function* streamChat(body, signal, onOpen) {
  // Counts with each chunk tell the speed while it runs, and the size of a stopped answer.
  const options = { include_usage: true, continuous_usage_stats: true };
  const streamed = { ...body, stream: true, stream_options: options };
  const response = await send("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(streamed),
    signal,
  });
  onOpen(response.headers.get("X-Request-Id"));
  let complete = false;
  try {
    for await (const data of serverSentEvents(response.body)) {
      // Read on after the end mark: leaving now would look like a disconnect to the server.
      if (data === "[DONE]") complete = true;
      else yield parseChunk(data);
    }
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw new ApiError(0, { message: "The connection was lost.", code: "connection_lost" });
  }
  if (complete) return;
  throw new ApiError(0, {
    message: "The connection closed before the answer was complete.",
    code: "connection_lost",
  });
}

function parseChunk(data) {
  const chunk = JSON.parse(data);
  if (chunk.error) throw new ApiError(200, chunk.error);
  return chunk;
}

async function send(path, options) {
  const headers = new Headers(options.headers);
  if (apiKey()) headers.set("Authorization", `Bearer ${apiKey()}`);
  const target = new URL(path, BASE);
  const response = await fetch(target, { ...options, headers, cache: "no-store" }).catch(
    unreachable,
  );
  if (response.ok) return response;
  const body = await response.json().catch(() => ({})); // a proxy may answer with HTML
  throw new ApiError(response.status, body.error, response.headers.get("Retry-After"));
}

function unreachable(error) {
  if (error.name === "AbortError") throw error;
  throw new ApiError(0, { message: "No answer from the server.", code: "unreachable" });
}
