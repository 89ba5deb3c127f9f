// What wasm_types.py calls on the page.

import { loadEngine } from "./page/engine.js";

const CONTEXT = 256; // tokens
const engines = new Map();

/** Loads a model; returns the number of its threads. */
globalThis.load = async ([model, layout]) => {
  const blob = await (await fetch(`models/${model}`)).blob();
  const engine = await loadEngine(blob, { context: CONTEXT, kv: "q8_0", ...layout });
  engines.set(model, engine);
  return engine.getNumThreads();
};

/** Seconds per token of a prefill, and of decoding a number of tokens after the first. */
globalThis.time = async ({ model, prompt, tokens, banned }) => {
  const { timings } = await engines.get(model).createCompletion({
    prompt,
    max_tokens: tokens + 1,
    temperature: 0,
    ignore_eos: true,
    cache_prompt: false,
    logit_bias: banned.map((token) => [token, false]),
  });
  return [
    timings.prompt_ms / 1000 / timings.prompt_n,
    timings.predicted_ms / 1000 / (timings.predicted_n - 1),
  ];
};
