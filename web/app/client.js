// Client of the in-browser model, with the same functions and events as the client of the server's API.

import { checkClaim, checkSteps } from "./calculator.js";
import { threads } from "./device.js";
import { prose } from "./tables.js";
import { Wllama } from "./wllama/index.min.js";

const VOTE_TEMPERATURE = 0.7;
const MAX_TOKENS = 512;
const MEASURED_CHARS = 500; // in shorter prompts, the chat template's own tokens count too much
const TOO_LONG = /exceeds the available context size/; // llama.cpp's message
const EQUATION_END = prose("equation_end", "g"); // a number before it cannot grow any more
const NO_LOGGER = { debug() {}, log() {}, warn() {}, error() {} };

let engine = null;
let modelName = "";
let context = 0; // tokens
let tokensPerChar = 0.4; // estimate, measured anew with each prompt

/** A failure of the model; the message is one line for the user. */
export class ServerError extends Error {}

/** The model in the browser needs no API key. */
export function setApiKey() {}

/**
 * Load the model; required before the first question.
 *
 * @param {Blob} blob the GGUF.
 * @param {{name: string, context: number}} model
 * @throws {ServerError} there is too little memory, or the file is not a supported model.
 */
export async function loadModel(blob, model) {
  const wllama = new Wllama({ default: "wllama/wllama.wasm" }, { suppressNativeLog: true, logger: NO_LOGGER });
  wllama.setCompat(null); // otherwise wllama downloads a fallback build from another site
  const params = { n_ctx: model.context, n_batch: 64, n_parallel: 1, n_gpu_layers: 0, n_threads: threads() };
  try {
    await wllama.loadModel([blob], { ...params, warmup: false });
    if (!wllama.getLoadedContextInfo().success) throw new Error("llama.cpp rejects it");
  } catch (error) {
    await wllama.exit().catch(() => {});
    throw new ServerError(`The model could not be loaded: too little memory, or a damaged file (${error.message}).`);
  }
  engine = wllama;
  [modelName, context] = [model.name, model.context];
}

/** @returns {Promise<string[]>} the name of the only model. */
export async function listModels() {
  return [modelName];
}

/**
 * Ask a question and stream the answer.
 *
 * @param {{question: string, turns: Array<{question: string, answer: string}>, votes: number}} request `turns` are
 *   the earlier ones of the conversation, of which the oldest are dropped if the context has no room for them.
 * @param {AbortSignal} signal aborts the generation.
 * @yields {{event: string, data: object}} "text" and "step" events, and "answer" as the last.
 * @throws {ServerError} the question is too long, or the generation failed.
 */
export async function* streamAnswer({ question, turns, votes }, signal) {
  const kept = turns.slice(firstKept(question, turns));
  for (let started = false; !started; ) {
    try {
      const messages = toMessages(question, kept);
      for await (const event of votes > 1 ? vote(messages, votes, signal) : streamGreedy(messages, signal)) {
        started = true;
        if (event.event === "answer") event.data.dropped_turns = turns.length - kept.length;
        yield event;
      }
    } catch (error) {
      const message = error.message ?? String(error);
      if (started || !TOO_LONG.test(message) || !kept.shift()) {
        throw new ServerError(`The model could not answer: ${message}`);
      }
    }
  }
}

/** Index of the first turn that leaves room for an answer. The number of tokens is estimated: wllama tells none. */
function firstKept(question, turns) {
  const room = (context - Math.min(MAX_TOKENS, context / 4)) / tokensPerChar;
  const chars = (from) => countChars(toMessages(question, turns.slice(from)));
  const first = turns.findIndex((_, index) => chars(index) <= room);
  return first < 0 ? turns.length : first;
}

const countChars = (messages) => messages.reduce((sum, { content }) => sum + content.length, 0);

function toMessages(question, turns) {
  const earlier = turns.flatMap((turn) => [
    { role: "user", content: turn.question },
    { role: "assistant", content: turn.answer },
  ]);
  return [...earlier, { role: "user", content: question }];
}

async function* streamGreedy(messages, signal) {
  let [text, sentSteps] = ["", 0];
  for await (const piece of generate(messages, { temperature: 0 }, signal)) {
    if (piece.answer) {
      for (const data of piece.answer.steps.slice(sentSteps)) yield { event: "step", data };
      yield { event: "answer", data: piece.answer };
      return;
    }
    text += piece.text;
    yield { event: "text", data: { text: piece.text } };
    const complete = /\s/.test(piece.text) ? checkSteps(completeText(text)).slice(sentSteps) : [];
    for (const data of complete) yield { event: "step", data };
    sentSteps += complete.length;
  }
}

/** Majority vote over several sampled answers (self-consistency). */
async function* vote(messages, votes, signal) {
  const [counts, answers] = [new Map(), []];
  for (let seed = 0; seed < votes; seed++) {
    for await (const piece of generate(messages, { temperature: VOTE_TEMPERATURE, seed }, signal)) {
      if (piece.answer) answers.push(piece.answer);
    }
    const { value } = answers.at(-1);
    if (value !== null) counts.set(value, (counts.get(value) ?? 0) + 1);
  }
  const ranked = [...counts].sort(([, a], [, b]) => b - a);
  const winner = answers.find(({ value }) => value === ranked[0]?.[0]) ?? answers[0];
  const tally = { asked: votes, ended: votes, votes: Object.fromEntries(ranked) };
  yield { event: "answer", data: { ...winner, tally } };
}

/** Generate an answer: its text in pieces, then the whole answer. */
async function* generate(messages, sampling, signal) {
  const startMs = performance.now();
  let [text, firstTokenMs, pieces, stopReason, timings] = ["", 0, 0, "end", {}];
  const request = { messages, ...sampling, max_tokens: MAX_TOKENS, stream: true, abortSignal: signal };
  for await (const chunk of streamChunks(request)) {
    const [choice] = chunk.choices ?? [];
    timings = chunk.timings ?? timings;
    if (choice?.finish_reason === "length") stopReason = "length";
    if (!choice?.delta?.content) continue;
    firstTokenMs ||= performance.now();
    pieces++;
    text += choice.delta.content;
    yield { text: choice.delta.content };
  }
  const decode_s = (performance.now() - firstTokenMs) / 1000;
  const first_token_s = ((firstTokenMs || startMs) - startMs) / 1000;
  const promptTokens = (timings.prompt_n ?? 0) + (timings.cache_n ?? 0);
  const promptChars = countChars(messages);
  if (promptTokens && promptChars > MEASURED_CHARS) tokensPerChar = promptTokens / promptChars;
  yield { answer: buildAnswer(text, stopReason, timings, { pieces, decode_s, first_token_s }) };
}

/** Chunks of a chat completion. wllama's own iterator leaves the rejection of an abort unhandled. */
async function* streamChunks(request) {
  const queue = [];
  let [done, failure, wake] = [false, null, () => {}];
  const onData = (chunk) => wake(queue.push(chunk));
  const completion = engine.createChatCompletion({ ...request, onData });
  completion.catch((error) => (failure = error)).finally(() => wake((done = true)));
  for (;;) {
    while (queue.length) yield queue.shift();
    if (failure) throw failure;
    if (done) return;
    await new Promise((resolve) => (wake = resolve));
  }
}

/** The answer in the format of /v1/answer; wllama's timings, if any, are more exact than our own. */
function buildAnswer(text, stop_reason, timings, { pieces, decode_s, first_token_s }) {
  const tokens = timings.predicted_n ?? pieces;
  return {
    ...checkClaim(text),
    text,
    stop_reason,
    model: modelName,
    tally: null,
    usage: {
      prompt_tokens: (timings.prompt_n ?? 0) + (timings.cache_n ?? 0),
      completion_tokens: tokens,
      cached_tokens: timings.cache_n ?? 0,
      sampled_tokens: tokens,
    },
    timings: {
      decode_tokens_per_s: timings.predicted_per_second ?? Math.max(0, pieces - 1) / decode_s,
      first_token_s,
    },
  };
}

/** The text up to the last point that further text cannot change. */
function completeText(text) {
  const end = [...text.matchAll(EQUATION_END)].at(-1);
  return end ? text.slice(0, end.index + end[0].length) : "";
}
