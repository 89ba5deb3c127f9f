// Entry point: downloads and loads the model, then starts the server's page on top of it.

import { loadModel } from "./client.js";
import { fetchDescription } from "./description.js";
import { formatBytes, unsupportedReason } from "./device.js";
import { LoadError } from "./errors.js";
import { offerInstallation } from "./install.js";
import { missingBytes, modelBlob } from "./parts.js";
import { showStorage } from "./storage.js";
import { formatSeconds, TimeLeft } from "./time_left.js";

const ui = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
let loading = null; // AbortController of the current download
let agreed = false; // to a download of the size that was shown

async function start() {
  ui.error.textContent = "";
  loading = new AbortController();
  showStatus("Looking for the model", false);
  try {
    await prepareModel(loading.signal);
  } catch (error) {
    const cancelled = loading.signal.aborted;
    const hint = cancelled ? "" : await updateHint();
    showStatus(cancelled ? "Stopped: the parts downloaded so far are kept." : "The model is not ready.", true);
    if (!cancelled) ui.error.textContent = error.message + hint;
  } finally {
    loading = null;
  }
}

async function prepareModel(signal) {
  const model = await fetchDescription(new URL(".", document.baseURI).href, signal);
  const reason = unsupportedReason(model);
  if (reason) throw new LoadError(reason);
  const missing = await missingBytes(model, document.baseURI);
  if (missing && !agreed) return offerDownload(model, missing);
  navigator.serviceWorker?.register("sw.js").catch(() => {}); // without it, the page only works online
  const { blob, cached } = await modelBlob(model, document.baseURI, signal, showProgress(model));
  ui.cancel.hidden = true;
  ui.progress.removeAttribute("value");
  ui.amount.textContent = "";
  ui.status.textContent = "Loading the model into memory";
  await loadModel(blob, model);
  await showStorage(ui, cached);
  ui.load.hidden = true;
  document.documentElement.dataset.ready = "yes";
  await import("./page.js");
}

/** Ask before so much is downloaded. */
function offerDownload({ name }, bytes) {
  showStatus(`The model ${name} has to be downloaded first.`, true);
  ui.retry.textContent = `Download ${formatBytes(bytes)}`;
  agreed = true; // by the button, which starts anew
}

/** What shows the bytes available so far. Only the status is read aloud, and it stays the same. */
function showProgress({ name, file_bytes }) {
  const timeLeft = new TimeLeft(file_bytes);
  ui.progress.max = file_bytes;
  ui.status.textContent = `Fetching and verifying ${name}`;
  return (bytes) => {
    const seconds = timeLeft.seconds(bytes);
    const left = seconds === null ? "" : `, ${formatSeconds(seconds)} left`;
    ui.progress.value = bytes;
    ui.amount.textContent = `${formatBytes(bytes)} of ${formatBytes(file_bytes)}${left}`;
  };
}

/** What to do about a failure of an old page: the new one waits until the old one is closed. */
async function updateHint() {
  const registration = await navigator.serviceWorker?.getRegistration().catch(() => null);
  if (!registration?.waiting) return "";
  return " There is a newer version of this page: close all tabs with it and open it again.";
}

function showStatus(message, ended) {
  ui.status.textContent = message;
  ui.progress.hidden = ended;
  ui.amount.textContent = "";
  ui.cancel.hidden = ended;
  ui.retry.hidden = !ended;
  ui.retry.textContent = "Try again";
  if (ended) ui.retry.focus();
}

ui.cancel.addEventListener("click", () => loading?.abort());
ui.retry.addEventListener("click", start);

offerInstallation(ui.install);
start();
