// Client of a model in this browser, in place of the one of the server's API: no marks, no values and no votes.

import { deleteModel, downloadModel, missingBytes } from "./download.js";
import { element } from "./element.js";
import { formatBytes, loadEngine, unsupportedReason } from "./engine.js";

export const ABOUT =
  "The model runs on this device, and questions never leave it. Sums in its answers are not checked here, and there are " +
  "no votes.";
export const HAS_VOTES = false;
const MAX_TOKENS = 512;
// Times the context that is computed before the engine is loaded anew: it keeps the KV cache of every earlier prompt.
const CONTEXTS_KEPT = 4;
const TOO_LONG = /exceeds the available context size/; // llama.cpp's message

const status = element("p", { id: "status", role: "status" });
const progress = element("progress", { "aria-labelledby": "status" });
const button = element("button", { type: "button", hidden: "" });
const loading = element("section", { id: "load" }, status, progress, button);
let agreed = false; // to a download of the size that was shown
let model = null; // { name, context, load, engine, computed }: `computed` tokens, by this engine

/** The model in the browser needs no API key. */
export function setApiKey() {}

/** Download and load the model, as often as it takes. */
export async function listModels() {
  document.head.append(element("link", { rel: "manifest", href: "page/manifest.webmanifest" }));
  document.body.classList.add("loading");
  const about = document.getElementById("about");
  about.after(loading);
  while (!model) {
    const failure = await loadModel().catch((error) => error.message);
    if (failure) await pressed("Try again", failure);
  }
  document.body.classList.remove("loading");
  loading.remove();
  const forget = element("button", { type: "button", class: "secondary" }, "Delete the stored model");
  forget.onclick = () => deleteModel().then(() => forget.remove());
  about.append(" ", forget);
  return [{ id: model.name }];
}

async function loadModel() {
  status.textContent = "Looking for the model";
  const offline = () => Promise.reject(new Error("The model cannot be found. Check the connection and try again."));
  const description = await fetch("model.json").then((response) => response.json()).catch(offline);
  const { name, file_bytes, context, parts } = description;
  const reason = unsupportedReason(file_bytes);
  if (reason) throw new Error(reason);
  const missing = await missingBytes(parts);
  if (missing && !agreed) {
    await pressed(`Download ${formatBytes(missing)}`, `The model ${name} has to be downloaded first.`);
    agreed = true;
  }
  navigator.serviceWorker?.register("sw.js").catch(() => {}); // without it, the page only works online
  const stop = new AbortController();
  const stopped = new Error("Stopped: the parts downloaded so far are kept.");
  pressed("Cancel", `Fetching ${name}`).then(() => stop.abort(stopped));
  progress.hidden = false;
  progress.max = file_bytes;
  const blob = await downloadModel(parts, stop.signal, (bytes) => (progress.value = bytes));
  progress.removeAttribute("value");
  button.hidden = true;
  status.textContent = "Loading the model into memory";
  const failed = ({ message }) => Promise.reject(
    new Error(`The model could not be loaded: too little memory, or a damaged file (${message}).`),
  );
  const load = () => loadEngine(blob, description).catch(failed);
  model = { name, context, load, engine: await load(), computed: 0 };
}

/** Show a message and a button, and wait until it is pressed. */
function pressed(label, message) {
  status.textContent = message;
  button.textContent = label;
  progress.hidden = true;
  button.hidden = false;
  button.focus();
  return new Promise((resolve) => (button.onclick = resolve));
}

/** Ask a question and stream the answer: "text" and "thinking" events, and an answer without value and steps. */
export async function streamAnswer({ question, turns }, signal, onEvent) {
  if (model.computed > CONTEXTS_KEPT * model.context) {
    await model.engine.exit().catch(() => {});
    Object.assign(model, { engine: await model.load(), computed: 0 });
  }
  for (let dropped = 0; ; dropped++) {
    try {
      const answer = await generate(messagesOf(turns.slice(dropped), question), signal, onEvent);
      return { ...answer, dropped_turns: dropped };
    } catch (error) {
      signal.throwIfAborted();
      const tooLong = TOO_LONG.test(error.message);
      if (!tooLong) model.computed = Infinity; // it has crashed, and would go on failing
      if (!tooLong || dropped === turns.length) throw new Error(`The model could not answer: ${error.message}`);
    }
  }
}

function messagesOf(turns, question) {
  const earlier = turns.flatMap((turn) => [
    { role: "user", content: turn.question },
    { role: "assistant", content: turn.answer },
  ]);
  return [...earlier, { role: "user", content: question }];
}

async function generate(messages, signal, onEvent) {
  const start = performance.now();
  const answer = { text: "", thinking: "", value: null, steps: [], stop_reason: "end", model: model.name };
  let [firstMs, timings] = [0, {}];
  const receive = (event, text) => {
    firstMs ||= performance.now() - start;
    answer[event] += text;
    onEvent(event, { text });
  };
  const onData = (chunk) => {
    const { delta, finish_reason } = chunk.choices?.[0] ?? {};
    timings = chunk.timings ?? timings;
    if (finish_reason === "length") answer.stop_reason = "length";
    if (delta?.reasoning_content) receive("thinking", delta.reasoning_content);
    if (delta?.content) receive("text", delta.content);
  };
  const options = { temperature: 0, max_tokens: MAX_TOKENS, stream: true, abortSignal: signal, onData };
  await model.engine.createChatCompletion({ messages, ...options });
  const { prompt_n = 0, predicted_n = 0, predicted_ms = 0 } = timings;
  model.computed += prompt_n + predicted_n;
  const rate = predicted_ms && (1000 * (predicted_n - 1)) / predicted_ms;
  answer.usage = { completion_tokens: predicted_n };
  answer.timings = { decode_tokens_per_s: rate, first_token_s: firstMs / 1000 };
  return answer;
}
