// One reply: reads the stream into the message and measures it.

import { ApiError, streamChat } from "./api.js";
import { describe } from "./problems.js";

/**
 * Fill `reply` from the stream of `body`, calling `onChange` after each change. Ends with state
 * "done", "stopped" (the signal was aborted) or "failed" (with `problem`); never throws.
 */
export async function generate(reply, body, signal, onChange) {
  const clock = new StreamClock();
  try {
    const onOpen = (id) => (reply.stats.id = id);
    for await (const chunk of streamChat(body, signal, onOpen)) {
      readChunk(reply, chunk, clock);
      onChange();
    }
    reply.state = "done";
  } catch (error) {
    reply.state = signal.aborted ? "stopped" : "failed";
    if (!signal.aborted) reply.problem = describe(asApiError(error));
  }
  onChange();
}

function readChunk(reply, { choices, usage }, clock) {
  const choice = choices?.[0];
  const delta = choice?.delta ?? {};
  const thought = delta.reasoning ?? delta.reasoning_content ?? "";
  const text = delta.content ?? "";
  // The first chunk carries only the role: it is not a first token.
  if (text || thought || delta.tool_calls) clock.tick(reply.stats);
  if (text && reply.reasoning && !reply.content) reply.stats.thought = clock.elapsed;
  reply.content += text;
  reply.reasoning += thought;
  for (const call of delta.tool_calls ?? []) readCall(reply, call);
  if (choice?.finish_reason) reply.stats.finish = choice.finish_reason;
  if (usage) readUsage(reply.stats, usage);
  clock.measure(reply.stats);
}

// A call comes as its name once, then as pieces of its arguments.
function readCall(reply, { index, function: { name, arguments: text } }) {
  reply.calls ??= [];
  reply.calls[index] ??= { name: "", arguments: "" };
  reply.calls[index].name += name ?? "";
  reply.calls[index].arguments += text ?? "";
}

function readUsage(stats, usage) {
  stats.tokens = usage.completion_tokens;
  stats.prompt = usage.prompt_tokens;
  stats.cached = usage.prompt_tokens_details?.cached_tokens ?? stats.cached ?? 0;
}

// A failure of our own (unreadable JSON) still reaches the reader as a sentence.
function asApiError(error) {
  return error instanceof ApiError ? error : new ApiError(-1, { message: error.message });
}

/** Times as the person in front of the page saw them, in seconds. */
class StreamClock {
  constructor() {
    this.start = performance.now();
    this.first = null;
    this.last = null;
  }

  get elapsed() {
    return (performance.now() - this.start) / 1000;
  }

  tick(stats) {
    this.last = performance.now();
    if (this.first !== null) return;
    this.first = this.last;
    stats.ttft = (this.first - this.start) / 1000;
  }

  // Speed of decoding: the first token belongs to prefill.
  measure(stats) {
    const seconds = (this.last - this.first) / 1000;
    if (stats.tokens > 1 && seconds > 0) stats.speed = (stats.tokens - 1) / seconds;
  }
}
