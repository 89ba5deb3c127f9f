// Downloads the model in parts, which the browser checks by their hashes, and stores them for the next visit.

const CACHE_NAME = `thirteen-model-${document.baseURI.split("#")[0]}`; // other folders of the site have their own
const openCache = () => caches.open(CACHE_NAME).catch(() => null); // refused in some private windows

/** Delete the stored model. */
export const deleteModel = () => caches.delete(CACHE_NAME);

/** Bytes of the parts that are not stored. */
export async function missingBytes(parts) {
  const cache = await openCache();
  const sizes = await Promise.all(parts.map(async ({ name, bytes }) => ((await cache?.match(name)) ? 0 : bytes)));
  return sizes.reduce((sum, bytes) => sum + bytes, 0);
}

/**
 * Join the model from its parts; those that are missing are downloaded, and those of another model deleted.
 *
 * @param {Array<{name: string, bytes: number, integrity: string}>} parts
 * @param {AbortSignal} signal aborts the download; complete parts stay stored.
 * @param {(bytes: number) => void} onProgress called with the bytes that are there.
 * @returns {Promise<Blob>}
 */
export async function downloadModel(parts, signal, onProgress) {
  const cache = await openCache();
  const [wanted, blobs] = [new Set(parts.map(({ name }) => new URL(name, document.baseURI).href)), []];
  for (const request of (await cache?.keys()) ?? []) if (!wanted.has(request.url)) await cache.delete(request);
  navigator.storage?.persist?.().catch(() => {}); // not awaited: some browsers ask the user
  let done = 0;
  for (const { name, bytes, integrity } of parts) {
    let blob = await (await cache?.match(name))?.blob();
    if (!blob) {
      blob = await download(name, integrity, signal);
      await cache?.put(name, new Response(blob)).catch(() => {}); // there is no room
    }
    blobs.push(blob);
    onProgress((done += bytes));
  }
  return new Blob(blobs);
}

async function download(name, integrity, signal) {
  const response = await fetch(name, { integrity, signal }).catch(() => {
    signal.throwIfAborted();
    throw new Error("A part of the model is damaged, or cannot be fetched. Check the connection and try again.");
  });
  return response.blob();
}
