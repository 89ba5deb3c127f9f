// Runs a task with node-llama-cpp; reads it as JSON from standard input and writes the results as JSON.
// Task: {model, adapter, texts, prompts, count, distributions}. Results: the tokens of the texts, the greedy
// continuation of each prompt (at most `count` tokens), and the logits of every token after each of the first
// `distributions` prompts.

import { readFileSync } from "node:fs";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

const task = JSON.parse(readFileSync(0, "utf8"));
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath: task.model, gpuLayers: 0 });
const lora = task.adapter ? { adapters: [{ filePath: task.adapter, scale: 1 }] } : undefined;
const context = await model.createContext({ contextSize: 1024, batchSize: 1024, threads: 2, flashAttention: true, lora });
const sequence = context.getSequence();

async function complete(prompt) {
  await sequence.clearHistory();
  const tokens = [];
  for await (const token of sequence.evaluate(prompt, { temperature: 0 })) {
    tokens.push(token);
    if (tokens.length === task.count) break;
  }
  return tokens;
}

async function nextLogits(prompt) {
  await sequence.clearHistory();
  const last = [prompt.at(-1), { generateNext: { logits: true, options: { temperature: 0 } } }];
  const results = await sequence.controlledEvaluate([...prompt.slice(0, -1), last]);
  const logits = results.at(-1).next.logits;
  return [...logits].sort(([one], [other]) => one - other).map(([, logit]) => logit);
}

const results = { tokens: task.texts.map((text) => model.tokenize(text, true)), answers: [], distributions: [] };
for (const prompt of task.prompts) results.answers.push(await complete(prompt));
for (const prompt of task.prompts.slice(0, task.distributions)) results.distributions.push(await nextLogits(prompt));
process.stdout.write(JSON.stringify(results), () => process.exit(0));
