// The model in the browser: answers by wllama (llama.cpp in WebAssembly), their equations checked.

import { checkAnswer, checkSteps } from "./calculator.js";
import { loadEngine } from "./engine.js";
import { ModelError } from "./errors.js";
import { prose } from "./tables.js";

const VOTE_TEMPERATURE = 0.7;
const MAX_TOKENS = 512;
const MEASURED_CHARS = 500; // in shorter prompts, the chat template's own tokens count too much
const TOO_LONG = /exceeds the available context size/; // llama.cpp's message
// A number before it cannot grow any more. ", r" and ", w" are none: they may begin ", with remainder 2".
const EQUATION_END = prose("equation_end", "g");

export class Model {
  #engine;
  #context; // tokens
  #tokensPerChar = 0.4; // estimate, measured anew with each prompt
  #busy = false;

  /** Use load(). */
  constructor(engine, { name, context }) {
    this.#engine = engine;
    this.#context = context;
    this.name = name;
  }

  /**
   * Load a model into memory.
   *
   * @param {Blob} blob the GGUF.
   * @param {{name: string, context: number, file_bytes: number, needed_bytes: number}} description
   * @returns {Promise<Model>}
   * @throws {ModelError} there is too little memory, or the file is not a supported model.
   */
  static async load(blob, description) {
    try {
      return new Model(await loadEngine(blob, description), description);
    } catch (error) {
      throw new ModelError(`The model could not be loaded: too little memory, or a damaged file (${error.message}).`);
    }
  }

  /**
   * Ask a question and stream the answer.
   *
   * @param {string} question
   * @param {{turns?: Array<{question: string, answer: string}>, votes?: number, system?: string,
   *   temperature?: number, signal?: AbortSignal}} [options] `turns` are the earlier ones of the conversation, of which the oldest are dropped if the context has no
   *   room for them. `votes`: answers of a majority vote. `signal` aborts the generation, and so does leaving
   *   the loop.
   * @yields {{event: string, data: object}} "text" and "step" events, and "answer" as the last.
   * @throws {ModelError} the question is too long, the generation failed, or another one is running. An abort
   *   throws the signal's reason.
   */
  async *events(question, { turns = [], votes = 1, system, temperature, signal } = {}) {
    if (this.#busy) throw new ModelError("The model is answering another question.");
    this.#busy = true;
    try {
      const messages = (kept) => toMessages(system, kept, question);
      yield* this.#eventsThatFit(messages, turns, votes, temperature, signal);
    } finally {
      this.#busy = false;
    }
  }

  async *#eventsThatFit(messages, turns, votes, temperature, signal) {
    const kept = turns.slice(this.#firstKept(messages, turns));
    for (let started = false; !started; ) {
      try {
        const prompt = messages(kept);
        const events =
          votes > 1 ? this.#vote(prompt, votes, temperature, signal) : this.#stream(prompt, temperature, signal);
        for await (const event of events) {
          started = true;
          if (event.event === "answer") event.data.dropped_turns = turns.length - kept.length;
          yield event;
        }
      } catch (error) {
        signal?.throwIfAborted();
        const message = error.message ?? String(error);
        if (started || !TOO_LONG.test(message) || !kept.shift()) {
          throw new ModelError(`The model could not answer: ${message}`);
        }
      }
    }
  }

  /** Index of the first turn that leaves room for an answer. Tokens are estimated: wllama counts none. */
  #firstKept(messages, turns) {
    const room = (this.#context - Math.min(MAX_TOKENS, this.#context / 4)) / this.#tokensPerChar;
    const chars = (from) => countChars(messages(turns.slice(from)));
    const first = turns.findIndex((_, index) => chars(index) <= room);
    return first < 0 ? turns.length : first;
  }

  async *#stream(messages, temperature = 0, signal) {
    let [text, sentSteps] = ["", 0];
    for await (const piece of this.#generate(messages, { temperature, seed: randomSeed() }, signal)) {
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

  /** Majority vote over several sampled answers (self-consistency), until the missing ones cannot change it. */
  async *#vote(messages, votes, temperature, signal) {
    const [answers, sampling] = [[], { temperature: temperature || VOTE_TEMPERATURE }];
    const first = temperature ? randomSeed() : 0;
    for (let seed = 0; seed < votes && isOpen(answers, votes - seed); seed++) {
      for await (const piece of this.#generate(messages, { ...sampling, seed: first + seed }, signal)) {
        if (piece.answer) answers.push(piece.answer);
      }
    }
    yield { event: "answer", data: selectWinner(answers, votes) };
  }

  /** Generate an answer: its text in pieces, then the whole answer. */
  async *#generate(messages, sampling, signal) {
    const startMs = performance.now();
    let [text, firstTokenMs, pieces, stopReason, timings] = ["", 0, 0, "end", {}];
    const request = { messages, ...sampling, max_tokens: MAX_TOKENS, stream: true };
    for await (const chunk of this.#chunks(request, signal)) {
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
    if (promptTokens && promptChars > MEASURED_CHARS) this.#tokensPerChar = promptTokens / promptChars;
    const question = messages.map(({ content }) => content).join("\n");
    const answer = buildAnswer(question, text, stopReason, timings, { pieces, decode_s, first_token_s });
    yield { answer: { ...answer, model: this.name } };
  }

  /**
   * Chunks of a chat completion. wllama's own iterator leaves the rejection of an abort unhandled, and goes on
   * generating for a reader that is gone.
   */
  async *#chunks(request, signal) {
    const stop = new AbortController();
    const queue = [];
    let [done, failure, wake] = [false, null, () => {}];
    const abort = () => stop.abort();
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort);
    const onData = (chunk) => wake(queue.push(chunk));
    const completion = this.#engine.createChatCompletion({ ...request, abortSignal: stop.signal, onData });
    const settled = completion.catch((error) => (failure = error)).finally(() => wake((done = true)));
    try {
      for (;;) {
        while (queue.length) yield queue.shift();
        if (failure) throw failure;
        if (done) return;
        await new Promise((resolve) => (wake = resolve));
      }
    } finally {
      signal?.removeEventListener("abort", abort);
      abort();
      await settled;
    }
  }
}

const countChars = (messages) => messages.reduce((sum, { content }) => sum + content.length, 0);

const randomSeed = () => Math.floor(Math.random() * 2 ** 31);

function toMessages(system, turns, question) {
  const earlier = turns.flatMap((turn) => [
    { role: "user", content: turn.question },
    { role: "assistant", content: turn.answer },
  ]);
  return [...(system ? [{ role: "system", content: system }] : []), ...earlier, { role: "user", content: question }];
}

const isVote = ({ value, stop_reason }) => value !== null && stop_reason === "end";

/** Values with their answers' count: the most first, at a tie the most verified. */
function rankValues(answers) {
  const ranked = new Map();
  for (const { value, verified } of answers) {
    const [votes, checked] = ranked.get(value) ?? [0, 0];
    ranked.set(value, [votes + 1, checked + verified]);
  }
  return [...ranked].sort(([, [a, checkedA]], [, [b, checkedB]]) => b - a || checkedB - checkedA);
}

/** Whether missing answers could change which value has most votes. */
function isOpen(answers, missing) {
  const [first = 0, second = 0] = rankValues(answers.filter(isVote)).map(([, [votes]]) => votes);
  return first <= second + missing;
}

/**
 * The best answer of the winning value, as in the engine, which also knows how likely each is. Answers that are no
 * votes count only if there are no votes.
 */
function selectWinner(answers, asked) {
  const candidates = answers.some(isVote) ? answers.filter(isVote) : answers;
  const ranked = rankValues(candidates);
  const winners = candidates.filter(({ value }) => value === ranked[0][0]);
  const winner = winners.find(({ verified }) => verified) ?? winners[0];
  const counts = ranked.filter(([value]) => value !== null).map(([value, [count]]) => [value, count]);
  return { ...winner, tally: { asked, ended: answers.length, votes: Object.fromEntries(counts) } };
}

/** The answer in the format of /v1/answer; wllama's timings, if any, are more exact than our own. */
function buildAnswer(question, text, stop_reason, timings, { pieces, decode_s, first_token_s }) {
  const tokens = timings.predicted_n ?? pieces;
  return {
    ...checkAnswer(text, question),
    text,
    stop_reason,
    tally: null,
    usage: {
      prompt_tokens: (timings.prompt_n ?? 0) + (timings.cache_n ?? 0),
      completion_tokens: tokens,
      cached_tokens: timings.cache_n ?? 0,
      sampled_tokens: tokens,
    },
    timings: {
      decode_tokens_per_s: Math.max(0, tokens - 1) / (timings.predicted_ms / 1000 || decode_s),
      first_token_s,
    },
  };
}

/** The text up to the last point that further text cannot change. */
function completeText(text) {
  const end = [...text.matchAll(EQUATION_END)].at(-1);
  return end ? text.slice(0, end.index + end[0].length) : "";
}
