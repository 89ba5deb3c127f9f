// Client of the server's API: API key, models, and answers as a stream of events.

import { load, save } from "./store.js";

const KEY_NAME = "thirteen.key";
const CONNECTION_LOST = "The connection was lost before the answer was complete.";
let apiKey = load("sessionStorage", KEY_NAME);

/** A request that failed; the message is one line for the user. */
export class ServerError extends Error {
  /**
   * @param {string} message
   * @param {number} [status] HTTP status, if there was a response.
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Send this API key with every request, until the tab is closed. */
export function setApiKey(key) {
  apiKey = key;
  save("sessionStorage", KEY_NAME, key);
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
 * @param {{question: string, model?: string, effort: string, system?: string, temperature?: number}} request
 * @param {AbortSignal} signal aborts the request.
 * @yields {{event: string, data: object}} "thinking", "text", "step" and "tally" events, and "answer" as the last.
 * @throws {ServerError} the request was rejected, failed, or lost its connection.
 */
export async function* streamAnswer(request, signal) {
  const response = await send("v1/answer", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...request, stream: true }),
    signal,
  });
  let complete = false;
  for await (const { event, data } of readEvents(response.body)) {
    if (event === "error") throw new ServerError(data.error.message);
    yield { event, data };
    complete ||= event === "answer";
  }
  if (!complete) throw new ServerError(CONNECTION_LOST);
}

async function send(path, options = {}) {
  const headers = { ...options.headers, ...(apiKey && { Authorization: `Bearer ${apiKey}` }) };
  const response = await withMessage(fetch(path, { ...options, headers }), "The server cannot be reached.");
  if (!response.ok) throw await responseError(response);
  return response;
}

/** The promise, with a network error replaced by a ServerError. */
function withMessage(promise, message) {
  return promise.catch(() => Promise.reject(new ServerError(message)));
}

async function responseError(response) {
  const body = await response.json().catch(() => null);
  const message = body?.error?.message ?? `The server responded with status ${response.status}.`;
  const seconds = Number(response.headers.get("Retry-After"));
  const retry = seconds > 0 ? ` (try again in ${seconds} s)` : "";
  return new ServerError(message + retry, response.status);
}

/** Events of a text/event-stream; https://html.spec.whatwg.org/multipage/server-sent-events.html */
async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { done, value } = await withMessage(reader.read(), CONNECTION_LOST);
      if (done) return;
      const blocks = (buffer + value).split(/\r?\n\r?\n/);
      buffer = blocks.pop();
      yield* blocks.map(parseEvent).filter(Boolean);
    }
  } finally {
    reader.cancel().catch(() => {}); // rejects if the stream has failed
  }
}

function parseEvent(block) {
  const fields = block.split(/\r?\n/).map((line) => /^([^:]*):? ?(.*)$/s.exec(line).slice(1));
  const data = fields.filter(([name]) => name === "data").map(([, value]) => value);
  const event = fields.findLast(([name]) => name === "event")?.[1] ?? "message";
  return data.length ? { event, data: JSON.parse(data.join("\n")) } : null;
}
