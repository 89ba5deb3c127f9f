// The model on this device, to the page what the server's client is to it: the same functions and events.

import { check, steps } from "./calculator.js";
import { threads } from "./device.js";
import { Wllama } from "./wllama/index.min.js";

const VOTING = 0.7; // temperature, where there are several answers
const MOST = 512; // tokens of an answer
// Behind such a place, the number before it goes no further, and so neither does its equation.
const SETTLED = /[.!?,;]\s|\n/g;
const QUIET = { debug() {}, log() {}, warn() {}, error() {} };

let engine = null;
let name = "";

/** What the model could not do; the message is one line. */
export class ServerError extends Error {}

/** There are no keys here. */
export function unlock() {}

/**
 * Load the model; only then can anything be asked.
 *
 * @param {Blob} blob the GGUF.
 * @param {{name: string, context: number}} model
 * @throws {ServerError} there is too little memory, or the file is none that can be run.
 */
export async function load(blob, model) {
  const made = new Wllama({ default: "wllama/wllama.wasm" }, { suppressNativeLog: true, logger: QUIET });
  made.setCompat(null); // else it would fetch another build from elsewhere
  const phone = { n_ctx: model.context, n_batch: 64, n_parallel: 1, n_gpu_layers: 0, n_threads: threads() };
  try {
    await made.loadModel([blob], { ...phone, warmup: false });
    if (!made.getLoadedContextInfo().success) throw new Error("llama.cpp refuses it");
  } catch (failure) {
    await made.exit().catch(() => {});
    throw new ServerError(`The model could not be loaded: there is too little memory, or it is damaged (${failure.message}).`);
  }
  engine = made;
  name = model.name;
}

/** @returns {Promise<string[]>} the name of the one model. */
export async function models() {
  return [name];
}

/**
 * Ask, and hear the answer as it comes.
 *
 * @param {{question: string, votes: number}} asked
 * @param {AbortSignal} signal ends it.
 * @yields {{event: string, data: object}} "text", "step", and "answer" as the last.
 * @throws {ServerError} the question is too long, or the model failed.
 */
export async function* answer({ question, votes }, signal) {
  try {
    yield* votes > 1 ? polled(question, votes, signal) : streamed(question, signal);
  } catch (failure) {
    throw new ServerError(`The model could not answer: ${failure.message ?? failure}`);
  }
}

async function* streamed(question, signal) {
  let [text, told] = ["", 0];
  for await (const heard of written(question, { temperature: 0 }, signal)) {
    if (heard.answer) {
      for (const data of heard.answer.steps.slice(told)) yield { event: "step", data };
      yield { event: "answer", data: heard.answer };
      return;
    }
    text += heard.text;
    yield { event: "text", data: { text: heard.text } };
    const complete = /\s/.test(heard.text) ? steps(settled(text)).slice(told) : [];
    for (const data of complete) yield { event: "step", data };
    told += complete.length;
  }
}

/** Several answers, of which the value that most give counts. */
async function* polled(question, votes, signal) {
  const [tally, answers] = [new Map(), []];
  for (let seed = 0; seed < votes; seed++) {
    for await (const { answer: one } of written(question, { temperature: VOTING, seed }, signal)) {
      if (one) answers.push(one);
    }
    const { value } = answers.at(-1);
    if (value !== null) tally.set(value, (tally.get(value) ?? 0) + 1);
  }
  const ranked = [...tally].sort(([, one], [, other]) => other - one);
  const chosen = answers.find(({ value }) => value === ranked[0]?.[0]) ?? answers[0];
  const told = { asked: votes, ended: votes, votes: Object.fromEntries(ranked) };
  yield { event: "answer", data: { ...chosen, tally: told } };
}

/** The text of an answer as it is written, and then the whole of it. */
async function* written(question, sampling, signal) {
  const began = performance.now();
  let [text, first, count, reason, timings] = ["", 0, 0, "end", {}];
  const messages = [{ role: "user", content: question }];
  const asked = { messages, ...sampling, max_tokens: MOST, stream: true, abortSignal: signal };
  for await (const chunk of chunks(asked)) {
    const [choice] = chunk.choices ?? [];
    timings = chunk.timings ?? timings;
    if (choice?.finish_reason === "length") reason = "length";
    if (!choice?.delta?.content) continue;
    first ||= performance.now();
    count++;
    text += choice.delta.content;
    yield { text: choice.delta.content };
  }
  const decode_s = (performance.now() - first) / 1000;
  yield { answer: whole(text, reason, timings, { began, first: first || began, count, decode_s }) };
}

/** What wllama tells of a chat completion. Its own iterator leaves an abort without anyone who handles it. */
async function* chunks(asked) {
  const news = [];
  let [over, failure, wake] = [false, null, () => {}];
  const onData = (chunk) => wake(news.push(chunk));
  const done = engine.createChatCompletion({ ...asked, onData });
  done.catch((why) => (failure = why)).finally(() => wake((over = true)));
  for (;;) {
    while (news.length) yield news.shift();
    if (failure) throw failure;
    if (over) return;
    await new Promise((resolve) => (wake = resolve));
  }
}

function whole(text, stop_reason, timings, { began, first, count, decode_s }) {
  const tokens = timings.predicted_n ?? count;
  return {
    ...check(text),
    text,
    stop_reason,
    model: name,
    tally: null,
    usage: {
      prompt_tokens: (timings.prompt_n ?? 0) + (timings.cache_n ?? 0),
      completion_tokens: tokens,
      cached_tokens: timings.cache_n ?? 0,
      sampled_tokens: tokens,
    },
    timings: {
      decode_tokens_per_s: timings.predicted_per_second ?? Math.max(0, count - 1) / decode_s,
      first_token_s: (first - began) / 1000,
    },
  };
}

/** As much of a text as no more text can change. */
function settled(text) {
  const end = [...text.matchAll(SETTLED)].at(-1);
  return end ? text.slice(0, end.index + end[0].length) : "";
}
