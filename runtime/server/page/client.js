// The server as the page sees it: its key, its models, and an answer as a stream of events.

import { load, save } from "./store.js";

const KEY = "thirteen.key";
const BROKEN = "The answer broke off: the connection was lost.";
let key = load("sessionStorage", KEY);

/** What the server, or the way to it, could not do; the message is one line. */
export class ServerError extends Error {
  /**
   * @param {string} message
   * @param {number} [status] of HTTP, where there was an answer at all.
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Show this key with every request until the tab is closed. */
export function unlock(given) {
  key = given;
  save("sessionStorage", KEY, key);
}

/** @returns {Promise<string[]>} the models' names, the server's default first. */
export async function models() {
  const response = await send("v1/models");
  return (await response.json()).data.map((model) => model.id);
}

/**
 * Ask, and hear the answer as it comes.
 *
 * @param {{question: string, model?: string, votes: number}} asked
 * @param {AbortSignal} signal ends it.
 * @yields {{event: string, data: object}} "text", "step", and "answer" as the last.
 * @throws {ServerError} refused, failed, or broken off.
 */
export async function* answer(asked, signal) {
  const response = await send("v1/answer", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...asked, stream: true }),
    signal,
  });
  let whole = false;
  for await (const { event, data } of events(response.body)) {
    if (event === "error") throw new ServerError(data.error.message);
    yield { event, data };
    whole ||= event === "answer";
  }
  if (!whole) throw new ServerError(BROKEN);
}

async function send(path, options = {}) {
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await reached(fetch(path, { ...options, headers }), "The server cannot be reached.");
  if (!response.ok) throw await refusal(response);
  return response;
}

/** What a promise of the network gives; its failure in words. */
function reached(promise, words) {
  return promise.catch(() => Promise.reject(new ServerError(words)));
}

async function refusal(response) {
  const told = await response.json().catch(() => null);
  const message = told?.error?.message ?? `The server refuses: status ${response.status}.`;
  const seconds = Number(response.headers.get("Retry-After"));
  const later = seconds > 0 ? ` (try again in ${seconds} s)` : "";
  return new ServerError(message + later, response.status);
}

/** The events of a text/event-stream; https://html.spec.whatwg.org/multipage/server-sent-events.html */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  try {
    for (;;) {
      const { done, value } = await reached(reader.read(), BROKEN);
      if (done) return;
      const blocks = (unread + value).split(/\r?\n\r?\n/);
      unread = blocks.pop();
      yield* blocks.map(parsed).filter(Boolean);
    }
  } finally {
    reader.cancel().catch(() => {}); // it may have failed before
  }
}

function parsed(block) {
  const fields = block.split(/\r?\n/).map((line) => /^([^:]*):? ?(.*)$/.exec(line).slice(1));
  const data = fields.filter(([name]) => name === "data").map(([, value]) => value);
  const event = fields.findLast(([name]) => name === "event")?.[1] ?? "message";
  return data.length ? { event, data: JSON.parse(data.join("\n")) } : null;
}
