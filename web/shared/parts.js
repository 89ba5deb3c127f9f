// Downloads the model in parts, caches them in the browser, and verifies their hashes on every load.

import { descriptionAddress } from "./description.js";
import { LoadError, reasonOf } from "./errors.js";

const NAME_UNTIL_0_3 = /^thirteen-model-[0-9a-f]{64}$/;
// Other folders of the site have their own models.
const cachePrefix = (base) => `thirteen-model-${new URL(".", base).href}-`;

/**
 * Assemble the model from cached parts, and download the missing ones. Its description is cached with them.
 *
 * @param {{sha256: string, file_bytes: number, parts: Array<{name: string, sha256: string}>}} model
 * @param {string} base address of the folder with the parts.
 * @param {AbortSignal} signal aborts the download; complete parts stay cached.
 * @param {(bytes: number) => void} onProgress called with the number of bytes available so far.
 * @returns {Promise<{blob: Blob, cached: boolean}>} `cached`: all is cached for offline use.
 * @throws {LoadError} there is no connection, or a part does not match its hash.
 */
export async function modelBlob(model, base, signal, onProgress) {
  const cache = await openCache(base, model.sha256);
  const blobs = [];
  let cached = cache !== null;
  for (const { name, sha256 } of model.parts) {
    const part = { name, sha256, url: new URL(name, base).href };
    signal.throwIfAborted();
    const before = totalSize(blobs);
    let blob = cache && (await cachedPart(cache, part));
    if (!blob) {
      blob = await downloadPart(part, signal, (bytes) => onProgress(before + bytes));
      cached &&= await put(cache, part.url, blob);
    }
    blobs.push(blob);
    onProgress(before + blob.size);
  }
  cached &&= await put(cache, descriptionAddress(base), new Blob([JSON.stringify(model)]));
  return { blob: new Blob(blobs), cached };
}

/** Bytes that modelBlob() would download: those of the parts that are not cached. */
export async function missingBytes({ parts, sha256 }, base) {
  const cacheName = cachePrefix(base) + sha256;
  const stored = async ({ name }) => caches.match(new URL(name, base).href, { cacheName });
  const missing = async (part) => ((await stored(part).catch(() => null)) ? 0 : part.bytes);
  const sizes = await Promise.all(parts.map(missing));
  return sizes.reduce((sum, bytes) => sum + bytes, 0);
}

/** Delete the models that are stored for the pages of a folder, but for that in the cache `kept`. */
export async function deleteStoredModels(base, kept = "") {
  for (const name of await caches.keys()) {
    if ((name.startsWith(cachePrefix(base)) || NAME_UNTIL_0_3.test(name)) && name !== kept) await caches.delete(name);
  }
}

const totalSize = (blobs) => blobs.reduce((bytes, { size }) => bytes + size, 0);

/** Open the cache of this model and delete those of other models; null if the browser allows no cache. */
async function openCache(base, sha256) {
  try {
    const name = cachePrefix(base) + sha256;
    await deleteStoredModels(base, name);
    globalThis.navigator?.storage?.persist?.().catch(() => {}); // not awaited: some browsers ask the user
    return await caches.open(name);
  } catch {
    return null;
  }
}

async function cachedPart(cache, part) {
  const response = await cache.match(part.url);
  if (!response) return null;
  const blob = await response.blob();
  if ((await hash(blob)) === part.sha256) return blob;
  await cache.delete(part.url); // damaged: download it again
  return null;
}

async function downloadPart(part, signal, onProgress) {
  for (const cache of ["default", "reload"]) {
    const blob = await fetchPart(part, { signal, cache }, onProgress);
    if ((await hash(blob)) === part.sha256) return blob;
  }
  throw new LoadError(`A part of the model (${part.name}) is damaged on the server: try again later.`);
}

async function fetchPart(part, options, onProgress) {
  const response = await received(fetch(part.url, options), part, options.signal);
  if (!response.ok) throw new LoadError(`A part of the model is missing: ${part.name}, status ${response.status}.`);
  const [chunks, reader] = [[], response.body.getReader()];
  for (let bytes = 0; ; ) {
    const { done, value } = await received(reader.read(), part, options.signal);
    if (done) return new Blob(chunks);
    chunks.push(value);
    onProgress((bytes += value.length));
  }
}

/** What a request for a part gives; its failure becomes a sentence. */
function received(promise, { name }, signal) {
  return promise.catch((error) => {
    signal.throwIfAborted();
    const reason = `${name}: ${reasonOf(error)}`;
    throw new LoadError(`A part of the model cannot be fetched, ${reason}. Check the connection and try again.`);
  });
}

async function put(cache, url, blob) {
  try {
    await cache.put(url, new Response(blob, { headers: { "Content-Length": blob.size } }));
    return true;
  } catch {
    return false; // quota exceeded, or not allowed
  }
}

async function hash(blob) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
