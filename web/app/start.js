// Entry point: downloads and loads the model, then starts the server's page on top of it.

import { loadModel } from "./client.js";
import { formatBytes, unsupportedReason } from "./device.js";
import { LoadError } from "./errors.js";
import { modelBlob } from "./parts.js";

const ui = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
let loading = null; // AbortController of the current download

async function start() {
  ui.error.textContent = "";
  loading = new AbortController();
  showStatus("Looking for the model", false);
  try {
    await prepareModel(loading.signal);
  } catch (error) {
    const cancelled = loading.signal.aborted;
    showStatus(cancelled ? "Stopped: the parts downloaded so far are kept." : "The model is not ready.", true);
    if (!cancelled) ui.error.textContent = error.message;
  } finally {
    loading = null;
  }
}

async function prepareModel(signal) {
  const model = await fetchDescription();
  const reason = unsupportedReason(model);
  if (reason) throw new LoadError(reason);
  ui.progress.max = model.file_bytes;
  const { blob, cached } = await modelBlob(model, document.baseURI, signal, (bytes) => {
    ui.progress.value = bytes;
    ui.status.textContent = `Fetching and verifying ${model.name}: ${formatBytes(bytes)} of ${formatBytes(model.file_bytes)}`;
  });
  ui.cancel.hidden = true;
  ui.progress.removeAttribute("value");
  ui.status.textContent = "Loading the model into memory";
  await loadModel(blob, model);
  ui.storage.textContent = cached
    ? "The model is stored on this device: this page works offline."
    : "This browser cannot store the model: it will be downloaded again next time.";
  ui.load.hidden = true;
  document.documentElement.dataset.ready = "yes";
  await import("./page.js");
}

async function fetchDescription() {
  try {
    return await (await fetch("model.json")).json();
  } catch {
    throw new LoadError("The network is unreachable, and this page is not on this device yet: connect and try again.");
  }
}

function showStatus(message, ended) {
  ui.status.textContent = message;
  ui.progress.hidden = ended;
  ui.cancel.hidden = ended;
  ui.retry.hidden = !ended;
  if (ended) ui.retry.focus();
}

ui.cancel.addEventListener("click", () => loading?.abort());
ui.retry.addEventListener("click", start);

navigator.serviceWorker?.register("sw.js").catch(() => {}); // without it, the page only works online
start();
