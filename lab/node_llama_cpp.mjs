// Measures node-llama-cpp: node node_llama_cpp.mjs PACKAGE MODEL CONTEXT-OPTIONS
// It prints {} when the model is loaded. For each line {prompts, tokens} of standard input it computes the prompts
// together and prints {first_s, rest_s, written}: seconds to the first token of all and from there to the last, and
// the number of tokens of each. An error is printed as {error}.

import { createInterface } from "node:readline";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, modelPath, contextOptions] = process.argv.slice(2);
const print = (value) => process.stdout.write(JSON.stringify(value) + "\n");

async function load() {
  const { getLlama, LlamaLogLevel } = await import(pathToFileURL(join(folder, "dist", "index.js")));
  const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.disabled });
  const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
  const options = JSON.parse(contextOptions);
  const context = await model.createContext(options);
  return Array.from({ length: options.sequences }, () => context.getSequence());
}

async function complete(sequence, prompt, count, onFirst) {
  await sequence.clearHistory();
  let written = 0;
  for await (const _ of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    if (written++ === 0) onFirst();
    if (written === count) break;
  }
  return written;
}

async function answer(sequences, { prompts, tokens }) {
  const start = performance.now();
  let first = start;
  const onFirst = () => (first = performance.now());
  const written = await Promise.all(
    prompts.map((prompt, index) => complete(sequences[index], prompt, tokens, onFirst)),
  );
  return { first_s: (first - start) / 1000, rest_s: (performance.now() - first) / 1000, written };
}

try {
  const sequences = await load();
  print({});
  for await (const line of createInterface({ input: process.stdin })) print(await answer(sequences, JSON.parse(line)));
} catch (error) {
  print({ error: String(error.message ?? error).split("\n")[0] });
}
process.exit(0);
