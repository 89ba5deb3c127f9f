// The model in the browser: answers by wllama (llama.cpp in WebAssembly), their equations checked.

import { checkAnswer } from "./checked_answer.js";
import { StepStream } from "./equations.js";
import { loadEngine } from "./engine.js";
import { ModelError } from "./errors.js";
import { standsAlone } from "./grounding.js";
import { confidence, countVotes, EXAMPLES, isDecided, selectWinner, VOTE_TEMPERATURE, votingRule } from "./vote.js";

const MAX_TOKENS = 512;
const MEASURED_CHARS = 500; // in shorter prompts, the chat template's own tokens count too much
// Times the context that is computed before the engine is loaded anew: llama.cpp's server keeps the KV cache of every
// earlier prompt, which wllama has no setting for.
const CONTEXTS_KEPT = 4;
const TOO_LONG = /exceeds the available context size/; // llama.cpp's message

export class Model {
  #engine;
  #load; // loads another one
  #computed = 0; // tokens, by this engine
  #context; // tokens
  #tokensPerChar = 0.4; // estimate, measured anew with each prompt
  #busy = false;

  /** Use load(). */
  constructor(engine, { name, context }, load) {
    this.#engine = engine;
    this.#load = load;
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
    const load = () =>
      loadEngine(blob, description).catch((error) => {
        throw new ModelError(`The model could not be loaded: too little memory, or a damaged file (${error.message}).`);
      });
    return new Model(await load(), description, load);
  }

  /**
   * Ask a question and stream the answer.
   *
   * @param {string} question
   * @param {{turns?: Array<{question: string, answer: string}>, effort?: string, system?: string,
   *   temperature?: number, signal?: AbortSignal}} [options] `turns` are the earlier ones of the conversation, of
   *   which the oldest are dropped if the context has no room for them. `effort`: with "medium" or "high", several
   *   answers are sampled until their majority is certain. `signal` aborts the generation, and so does leaving the
   *   loop.
   * @yields {{event: string, data: object}} "thinking", "text" and "step" events, or "tally" events of the votes so far, and
   *   "answer" as the last.
   * @throws {ModelError} the question is too long, the generation failed, or another one is running. An abort
   *   throws the signal's reason.
   */
  async *events(question, { turns = [], effort = "low", system, temperature, signal } = {}) {
    if (this.#busy) throw new ModelError("The model is answering another question.");
    this.#busy = true;
    try {
      if (this.#computed > CONTEXTS_KEPT * this.#context) await this.#renewEngine();
      const rule = votingRule(effort, question);
      // Votes over a conversation are worse than on a question alone.
      const needed = rule.answers > 1 && standsAlone(question) ? [] : turns;
      const hasRoom = countChars(toMessages(system, EXAMPLES, needed, question)) * this.#tokensPerChar <= this.#context / 2;
      const shown = hasRoom ? rule.examples : 0; // before so many of the first answers
      const messages = (kept, number) => toMessages(system, number < shown ? EXAMPLES : [], kept, question);
      yield* this.#eventsThatFit(messages, needed, rule, temperature, signal);
    } finally {
      this.#busy = false;
    }
  }

  async #renewEngine() {
    await this.#engine.exit().catch(() => {});
    this.#engine = await this.#load();
    this.#computed = 0;
  }

  async *#eventsThatFit(messages, turns, rule, temperature, signal) {
    const kept = turns.slice(this.#firstKept(messages, turns));
    for (let started = false; !started; ) {
      try {
        const prompt = (number) => messages(kept, number);
        const [votes, options] = [rule.answers > 1, [temperature, signal]];
        const events = votes ? this.#vote(prompt, rule, ...options) : this.#stream(prompt(0), ...options);
        for await (const event of events) {
          started = true;
          if (event.event === "answer") {
            event.data.dropped_turns = turns.length - kept.length;
            event.data.confidence = confidence(event.data);
          }
          yield event;
        }
      } catch (error) {
        signal?.throwIfAborted();
        const message = error.message ?? String(error);
        if (started || !TOO_LONG.test(message) || !kept.shift()) {
          if (!TOO_LONG.test(message)) this.#computed = Infinity; // it has crashed, and would go on failing
          throw new ModelError(`The model could not answer: ${message}`);
        }
      }
    }
  }

  /** Index of the first turn that leaves room for an answer. Tokens are estimated: wllama counts none. */
  #firstKept(messages, turns) {
    const room = (this.#context - Math.min(MAX_TOKENS, this.#context / 4)) / this.#tokensPerChar;
    const chars = (from) => countChars(messages(turns.slice(from), 0));
    const first = turns.findIndex((_, index) => chars(index) <= room);
    return first < 0 ? turns.length : first;
  }

  async *#stream(messages, temperature = 0, signal) {
    const stream = new StepStream(said(messages));
    let sentSteps = 0;
    for await (const piece of this.#generate(messages, { temperature, seed: randomSeed() }, signal)) {
      if (piece.answer) {
        for (const data of piece.answer.steps.slice(sentSteps)) yield { event: "step", data };
        yield { event: "answer", data: piece.answer };
        return;
      }
      yield { event: piece.text ? "text" : "thinking", data: { text: piece.text || piece.thinking } };
      const complete = stream.feed(piece.text);
      for (const data of complete) yield { event: "step", data };
      sentSteps += complete.length;
    }
  }

  /** Majority vote over several sampled answers (self-consistency). */
  async *#vote(prompt, rule, temperature, signal) {
    const [answers, sampling] = [[], { temperature: temperature || VOTE_TEMPERATURE }];
    const first = temperature ? randomSeed() : 0;
    let tally = countVotes(answers, rule);
    while (!isDecided(tally, rule)) {
      const seed = first + answers.length;
      for await (const piece of this.#generate(prompt(answers.length), { ...sampling, seed }, signal)) {
        if (piece.answer) answers.push(piece.answer);
      }
      tally = countVotes(answers, rule);
      yield { event: "tally", data: tally };
    }
    yield { event: "answer", data: selectWinner(answers, rule) };
  }

  /** Generate an answer: its text in pieces, then the whole answer. */
  async *#generate(messages, sampling, signal) {
    const startMs = performance.now();
    let [text, thinking, firstTokenMs, pieces, stopReason, timings] = ["", "", 0, 0, "end", {}];
    const request = { messages, ...sampling, max_tokens: MAX_TOKENS, stream: true };
    for await (const chunk of this.#chunks(request, signal)) {
      const [choice] = chunk.choices ?? [];
      timings = chunk.timings ?? timings;
      if (choice?.finish_reason === "length") stopReason = "length";
      const piece = { text: choice?.delta?.content || "", thinking: choice?.delta?.reasoning_content || "" };
      if (!piece.text && !piece.thinking) continue;
      firstTokenMs ||= performance.now();
      pieces++;
      text += piece.text;
      thinking += piece.thinking;
      yield piece;
    }
    this.#computed += (timings.prompt_n ?? 0) + (timings.predicted_n ?? pieces);
    const decode_s = (performance.now() - firstTokenMs) / 1000;
    const first_token_s = ((firstTokenMs || startMs) - startMs) / 1000;
    const promptTokens = (timings.prompt_n ?? 0) + (timings.cache_n ?? 0);
    const promptChars = countChars(messages);
    if (promptTokens && promptChars > MEASURED_CHARS) this.#tokensPerChar = promptTokens / promptChars;
    const answer = buildAnswer(said(messages), text, stopReason, timings, { pieces, decode_s, first_token_s });
    yield { answer: { ...answer, thinking, model: this.name } };
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

/** What was asked, with all that was said before. */
function said(messages) {
  const some = messages.filter((message) => message.role !== "system" && !EXAMPLES.includes(message));
  return some.map(({ content }) => content).join("\n");
}

function toMessages(system, examples, turns, question) {
  const earlier = turns.flatMap((turn) => [
    { role: "user", content: turn.question },
    { role: "assistant", content: turn.answer },
  ]);
  const first = system ? [{ role: "system", content: system }] : [];
  return [...first, ...examples, ...earlier, { role: "user", content: question }];
}

/** The answer in the format of /v1/answer; wllama's timings, if any, are more exact than our own. */
function buildAnswer(question, text, stop_reason, timings, { pieces, decode_s, first_token_s }) {
  const tokens = timings.predicted_n ?? pieces;
  return {
    ...checkAnswer(text, question, stop_reason === "end"),
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
