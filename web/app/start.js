// Before the page: the model is fetched or found, checked and loaded; then the page is as the server's.

import { load } from "./client.js";
import { gigabytes, lack } from "./device.js";
import { modelBlob, Trouble } from "./parts.js";

const part = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
let running = null; // the AbortController of what is going on

async function begin() {
  part.error.textContent = "";
  running = new AbortController();
  show("Looking for the model", false);
  try {
    await readied(running.signal);
  } catch (failure) {
    const stopped = running.signal.aborted;
    show(stopped ? "Stopped: what has come so far is kept." : "The model is not ready.", true);
    if (!stopped) part.error.textContent = failure.message;
  } finally {
    running = null;
  }
}

async function readied(signal) {
  const model = await described();
  const missing = lack(model);
  if (missing) throw new Trouble(missing);
  part.loading.max = model.file_bytes;
  const { blob, kept } = await modelBlob(model, signal, (bytes) => {
    part.loading.value = bytes;
    part.doing.textContent = `Fetching and checking ${model.name}: ${gigabytes(bytes)} of ${gigabytes(model.file_bytes)}`;
  });
  part.cancel.hidden = true;
  part.loading.removeAttribute("value");
  part.doing.textContent = "Loading the model into memory";
  await load(blob, model);
  part.stored.textContent = kept
    ? "The model is on this device: this page works without a network."
    : "This browser keeps nothing of this size: the model will be fetched again the next time.";
  part.load.hidden = true;
  document.documentElement.dataset.ready = "yes";
  await import("./page.js");
}

async function described() {
  try {
    return await (await fetch("model.json")).json();
  } catch {
    throw new Trouble("The network cannot be reached, and this page was not here before: connect and try again.");
  }
}

function show(words, ended) {
  part.doing.textContent = words;
  part.loading.hidden = ended;
  part.cancel.hidden = ended;
  part.again.hidden = !ended;
  if (ended) part.again.focus();
}

part.cancel.addEventListener("click", () => running?.abort());
part.again.addEventListener("click", begin);

// Without it the page works as long as there is a network.
navigator.serviceWorker?.register("sw.js").catch(() => {});
begin();
