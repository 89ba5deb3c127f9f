// Client of the server's API. A failed request is an Error whose message is one line for the user.

import { tryStorage } from "./conversations.js";

export const ABOUT =
  "Questions are sent to this server only. Sums in an answer are checked: right ones are underlined, wrong ones show " +
  "the right value. Whether they are the right sums for the question is not checked.";
export const HAS_VOTES = true;
const KEY_NAME = "thirteen.key";
const CONNECTION_LOST = "The connection was lost before the answer was complete.";
let apiKey = tryStorage(() => sessionStorage.getItem(KEY_NAME));

/** Send this API key with every request, until the tab is closed. */
export function setApiKey(key) {
  apiKey = key;
  tryStorage(() => sessionStorage.setItem(KEY_NAME, key)); // without storage, until the page is left
}

/** @returns {Promise<Array<{id: string, default_effort?: string}>>} the models that answer, the default first. */
export async function listModels() {
  const response = await send("v1/models");
  const { data } = await response.json();
  const answering = data.filter(({ capabilities }) => !capabilities?.includes("embedding"));
  return answering.length ? answering : data; // the server says that the model answers nothing
}

/**
 * Ask a question and stream the answer.
 *
 * @param {{question: string, turns: object[], effort: string, model?: string}} request
 * @param {AbortSignal} signal aborts the request.
 * @param {(event: string, data: object) => void} onEvent called with "thinking", "text" and "tally".
 * @returns {Promise<object>} the answer; rejected if the request fails, or the connection is lost.
 */
export async function streamAnswer(request, signal, onEvent) {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ ...request, stream: true });
  const response = await send("v1/answer", { method: "POST", headers, body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let buffer = ""; ; ) {
    const { done, value } = await reader.read().catch(() => fail(CONNECTION_LOST));
    if (done) fail(CONNECTION_LOST);
    const blocks = (buffer + value).split("\n\n");
    buffer = blocks.pop();
    for (const [, event, json] of blocks.map((block) => /^event: (\w+)\ndata: (.*)$/.exec(block)).filter(Boolean)) {
      const data = JSON.parse(json);
      if (event === "error") fail(data.error.message);
      if (event === "answer") return data;
      onEvent(event, data);
    }
  }
}

async function send(path, options = {}) {
  const headers = { ...options.headers, ...(apiKey && { Authorization: `Bearer ${apiKey}` }) };
  const response = await fetch(path, { ...options, headers }).catch(() => fail("The server cannot be reached."));
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  const seconds = Number(response.headers.get("Retry-After"));
  const retry = seconds > 0 ? ` (try again in ${seconds} s)` : "";
  fail((body?.error?.message ?? `The server responded with status ${response.status}.`) + retry, response.status);
}

function fail(message, status) {
  throw Object.assign(new Error(message), { status });
}
