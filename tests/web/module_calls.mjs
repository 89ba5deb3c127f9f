// What test_modules.py calls in Node.js: each function gets one argument and returns what the test compares.
import { readFileSync } from "node:fs";
import * as calls from "./module_calls.mjs";
import { checkAnswer } from "./checked_answer.js";
import { fetchDescription } from "./description.js";
import { StepStream } from "./equations.js";
import { standsAlone } from "./grounding.js";
import { Model } from "./model.js";
import { modelBlob } from "./parts.js";
import { confidence, isDecided, votingRule } from "./vote.js";

const modelOf = (createChatCompletion, context = 512) =>
  new Model({ createChatCompletion }, { name: "fake", context });

export const alone = (question) => standsAlone(question);

export const checked = ({ text, question }) => checkAnswer(text, question);

export function streamed([text, size]) {
  const stream = new StepStream();
  const starts = Array.from({ length: text.length / size + 1 }, (_, n) => n * size);
  const pieces = starts.map((start) => text.slice(start, start + size));
  return JSON.stringify([...pieces.flatMap((piece) => stream.feed(piece)), ...stream.finish()]) ===
    JSON.stringify(checkAnswer(text).steps);
}

export function seconds({ text, ends }) {
  const start = process.cpuUsage();
  for (const end of ends) checkAnswer(text + end, "");
  return process.cpuUsage(start).user / 1e6;
}

export async function vote([effort, answers]) {
  async function createChatCompletion({ seed, onData }) {
    const [content, finish_reason] = answers[seed];
    onData({ choices: [{ delta: { content } }] });
    onData({ choices: [{ finish_reason }] });
  }
  const model = modelOf(createChatCompletion);
  const tallies = [];
  for await (const { event, data } of model.events("1 + 1", { effort })) {
    if (event === "tally") tallies.push(data.ended);
    const { value, tally, usage } = data;
    if (event === "answer") return [value, tally.votes, tallies.at(-1), usage.completion_tokens];
  }
}

export function confident([first, second, grounded]) {
  return confidence({ value: "7", stop_reason: "end", grounded, tally: { votes: { 31: second, 7: first } } });
}

export function decided([effort, first, second, ended]) {
  const rule = votingRule(effort, "2");
  return isDecided({ asked: rule.answers, ended, votes: { 31: second, 7: first } }, rule);
}

export async function sent([question, options, context]) {
  const sent = [];
  const createChatCompletion = async ({ messages, temperature, seed }) => {
    sent.push([messages, temperature, Number.isInteger(seed)]);
  };
  const model = modelOf(createChatCompletion, context);
  for await (const _ of model.events(question, options));
  return sent[0];
}

export async function thought() {
  const deltas = [{ reasoning_content: "2 + 2 = 5?" }, { content: "2 + 5 = 7", reasoning_content: null }];
  const createChatCompletion = async ({ onData }) => {
    for (const delta of deltas) onData({ choices: [{ delta }] });
  };
  const model = modelOf(createChatCompletion);
  const events = [];
  for await (const { event, data } of model.events("2 + 5")) events.push([event, data.text, data.thinking]);
  return events;
}

export async function grounded(system) {
  const choices = [{ delta: { content: "2 + 5 = 7" } }];
  const createChatCompletion = async ({ onData }) => onData({ choices });
  const model = modelOf(createChatCompletion);
  const grounded = [];
  for await (const { data } of model.events("2 + 2", { system })) grounded.push(data.grounded);
  return grounded.at(-1);
}

export async function aborted(text) {
  const createChatCompletion = ({ abortSignal, onData }) => new Promise((_, reject) => {
    abortSignal.addEventListener("abort", () => reject(new Error("Operation aborted")));
    onData({ choices: [{ delta: { content: text } }] });
  });
  const model = modelOf(createChatCompletion);
  const stop = new AbortController();
  try {
    for await (const _ of model.events("1 + 1", { signal: stop.signal })) stop.abort();
  } catch (error) { return error.name; }
}

export async function loads(ends) {
  const answers = [];
  const load = async () => {
    const number = answers.push([]);
    const createChatCompletion = async ({ onData }) => {
      answers.at(-1).push(ends[answers.flat().length]);
      if (answers.at(-1).at(-1) === "crash") throw new Error("wllama has crashed");
      const timings = { prompt_n: answers.at(-1).at(-1), predicted_n: 10 };
      onData({ choices: [{ delta: { content: "2" } }], timings });
    };
    const exit = async () => { if (number !== answers.length) throw new Error("twice"); };
    return { createChatCompletion, exit };
  };
  const model = new Model(await load(), { name: "fake", context: 512 }, load);
  for (const _ of ends) {
    try {
      for await (const _ of model.events("1 + 1")) {}
    } catch (error) { if (!/crashed/.test(error.message)) throw error; }
  }
  return answers;
}

export async function stored() {
  const storage = { persist: () => new Promise(() => {}) };
  Object.defineProperty(globalThis, "navigator", { value: { storage } });
  globalThis.caches = { keys: async () => [], open: async () => ({ put: async () => {} }) };
  const model = { sha256: "0", parts: [] };
  return (await modelBlob(model, "http://localhost/", new AbortController().signal, () => {})).cached;
}

export async function fetched(fault) {
  const failure = new TypeError("fetch failed", { cause: new Error("no such file") });
  globalThis.fetch = async (address) => {
    if (address.endsWith("request.bin")) throw failure;
    const failing = new ReadableStream({ pull: () => Promise.reject(failure) });
    return new Response(address.endsWith("body.bin") ? failing : "content");
  };
  const onProgress = () => { if (fault === "progress") throw new RangeError("of the caller"); };
  const model = { sha256: "0", parts: [{ name: `${fault}.bin`, sha256: "0" }] };
  const { signal } = new AbortController();
  return modelBlob(model, "http://localhost/", signal, onProgress).catch((error) =>
    `${error.constructor.name} ${error.message}`);
}

export async function described(bodies) {
  const found = [];
  for (const body of bodies) {
    globalThis.fetch = async () => new Response(body);
    const description = fetchDescription("http://localhost/", new AbortController().signal);
    const sentence = (error) => `${error.constructor.name} ${error.message}`;
    found.push(await description.then(({ name }) => name, sentence));
  }
  return found;
}

const results = JSON.parse(readFileSync(0, "utf8")).map((argument) => calls[process.argv[2]](argument));
console.log(JSON.stringify(await Promise.all(results)));
