// Errors in words: what happened, and what the reader can do about it.

/** {title, detail, remedy, needsKey} for an ApiError or an unexpected exception. */
export function describe(error) {
  const { title, remedy } = explain(error);
  return { title, detail: error.message, remedy, needsKey: error.status === 401 };
}

function explain(error) {
  if (error.code === "unreachable") {
    return {
      title: "The server does not answer",
      remedy: "Check that it is still running, then try again.",
    };
  }
  if (error.code === "connection_lost") {
    return {
      title: "The answer was cut off",
      remedy: "The text so far is kept. Try again; if it happens again, see the server's log.",
    };
  }
  if (error.code === "context_length_exceeded") {
    return {
      title: "The conversation is too long for this model",
      remedy: "Clear the chat, edit an earlier message, or lower “Max tokens” in Settings.",
    };
  }
  return byStatus(error);
}

function byStatus({ status, param, retryAfter }) {
  const wait = retryAfter ? `Try again in ${retryAfter} s.` : "Try again in a moment.";
  switch (status) {
    case 200:
      return {
        title: "The engine failed while answering",
        remedy: "The text so far is kept. Try again; if it happens again, see the server's log.",
      };
    case 400:
      return {
        title: "The server refused the request",
        remedy: param ? `Change “${param}” (see Settings) and try again.` : "Change it and retry.",
      };
    case 401:
      return { title: "An API key is needed", remedy: "Enter the key, then try again." };
    case 404:
      return { title: "The model is not served here", remedy: "Reload the page to see which is." };
    case 413:
      return { title: "The request is too large", remedy: "Shorten it, or clear the chat." };
    case 429:
      return { title: "Too many requests", remedy: wait };
    case 503:
      return { title: "The server is busy or still loading", remedy: wait };
    default:
      return {
        title: status >= 500 ? "The server failed" : "The request failed",
        remedy: "Try again; if it happens again, see the server's log.",
      };
  }
}
