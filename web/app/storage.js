// Shows what the page has stored on the device, and deletes the model on request.

import { formatBytes } from "./device.js";
import { deleteStoredModels } from "./parts.js";

/**
 * Show whether the model is stored, and how much the page stores in all.
 *
 * @param {{storage: HTMLElement, forget: HTMLButtonElement}} ui
 * @param {boolean} stored whether the whole model is.
 */
export async function showStorage({ storage, forget }, stored) {
  forget.hidden = !stored;
  storage.textContent = stored
    ? `The model is stored here${await usage()}.`
    : "This browser cannot store the model: it will be downloaded again next time.";
  // Fulfilled when a service worker has stored the page; never without one.
  navigator.serviceWorker?.ready.then(async () => {
    const text = `The model is stored here${await usage()}: this page works offline.`;
    if (!forget.hidden) storage.textContent = text;
  });
  forget.onclick = async () => {
    forget.hidden = true;
    await deleteStoredModels(document.baseURI);
    storage.textContent = "The stored model is deleted: the next visit downloads it again.";
  };
}

/** What all of the page takes, in parentheses; empty if the browser does not tell. */
async function usage() {
  const bytes = (await navigator.storage?.estimate?.().catch(() => null))?.usage;
  return bytes ? ` (${formatBytes(bytes)} with the page)` : "";
}
