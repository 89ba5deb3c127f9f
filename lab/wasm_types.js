// Runs the tasks of wasm_types.py: it sends the result of each, and receives the next.

import { loadEngine } from "./engine.js";

const CONTEXT = 256; // tokens
const engines = new Map();

const tasks = {
  async load({ model }) {
    const blob = await (await fetch(`models/${model}`)).blob();
    const description = { context: CONTEXT, kv: "q8_0", file_bytes: blob.size, needed_bytes: blob.size };
    const engine = await loadEngine(blob, description);
    engines.set(model, engine);
    return { threads: engine.getNumThreads() };
  },

  /** Times of a prefill, and of decoding a number of tokens after the first. */
  async time({ model, prompt, tokens, banned }) {
    const { timings } = await engines.get(model).createCompletion({
      prompt,
      max_tokens: tokens + 1,
      temperature: 0,
      ignore_eos: true,
      cache_prompt: false,
      logit_bias: banned.map((token) => [token, false]),
    });
    return {
      prompt_tokens: timings.prompt_n,
      prefill_s: timings.prompt_ms / 1000,
      decode_s: timings.predicted_ms / 1000,
      decoded: timings.predicted_n - 1,
    };
  },
};

let result = { browser: navigator.userAgent, isolated: crossOriginIsolated };
for (;;) {
  const response = await fetch("next", { method: "POST", body: JSON.stringify(result) });
  const { task, ...options } = await response.json();
  if (task === "end") break;
  try {
    result = await tasks[task](options);
  } catch (error) {
    result = { error: error.message };
  }
}
