// Server-sent events from a fetch body. EventSource cannot POST, hence our own reader.

// A "\r" at the very end may be the first half of "\r\n" split across two network chunks.
const LINE_END = /\r\n|\n|\r(?!$)/;

/** Yields the data of each event as text; comments (keep-alives) and other fields are skipped. */
export async function* serverSentEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder(); // keeps a character split across chunks until it is whole
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return; // an event without its blank line is incomplete and is dropped
      const lines = (rest + decoder.decode(value, { stream: true })).split(LINE_END);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // closes the connection when the consumer stops early
  }
}
