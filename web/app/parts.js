// The model's parts: fetched once, kept by the browser, and checked against their hashes each time.

/** What is in the way of the model; the message is a sentence. */
export class Trouble extends Error {}

const PREFIX = "thirteen-model-";

/**
 * The model as one blob, from what is kept and, for the rest, from where the page came.
 *
 * @param {{sha256: string, file_bytes: number, parts: Array<{name: string, sha256: string}>}} model
 * @param {AbortSignal} signal ends it; what is whole by then is kept.
 * @param {(bytes: number, kept: boolean) => void} heard called as bytes come, and with all that are there.
 * @returns {Promise<{blob: Blob, kept: boolean}>} `kept`: it is there the next time without the network.
 * @throws {Trouble} no connection, or a part that is not what was published.
 */
export async function modelBlob(model, signal, heard) {
  const cache = await opened(model.sha256);
  const blobs = [];
  let kept = cache !== null;
  for (const part of model.parts) {
    signal.throwIfAborted();
    const before = sum(blobs);
    let blob = cache && (await keptPart(cache, part));
    if (!blob) {
      blob = await fetched(part, signal, (bytes) => heard(before + bytes));
      kept &&= await put(cache, part, blob);
    }
    blobs.push(blob);
    heard(before + blob.size);
  }
  return { blob: new Blob(blobs), kept };
}

const sum = (blobs) => blobs.reduce((bytes, { size }) => bytes + size, 0);

/** The place of this model's parts, those of others forgotten; null where the browser keeps nothing. */
async function opened(sha256) {
  try {
    const name = PREFIX + sha256;
    for (const other of await caches.keys()) {
      if (other.startsWith(PREFIX) && other !== name) await caches.delete(other);
    }
    await navigator.storage?.persist?.();
    return await caches.open(name);
  } catch {
    return null;
  }
}

async function keptPart(cache, part) {
  const response = await cache.match(part.name);
  if (!response) return null;
  const blob = await response.blob();
  if ((await hash(blob)) === part.sha256) return blob;
  await cache.delete(part.name); // damaged: it is fetched anew
  return null;
}

async function fetched(part, signal, heard) {
  for (const cache of ["default", "reload"]) {
    const blob = await received(part, { signal, cache }, heard);
    if ((await hash(blob)) === part.sha256) return blob;
  }
  throw new Trouble(`A part of the model (${part.name}) is damaged where this page comes from: try again later.`);
}

async function received(part, options, heard) {
  const chunks = [];
  try {
    const response = await fetch(part.name, options);
    if (!response.ok) throw new Trouble(`A part of the model is missing: ${part.name}, status ${response.status}.`);
    let bytes = 0;
    for (const reader = response.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) return new Blob(chunks);
      chunks.push(value);
      heard((bytes += value.length));
    }
  } catch (failure) {
    if (failure instanceof Trouble || options.signal.aborted) throw failure;
    throw new Trouble("The model is not on this device yet, and the network cannot be reached: connect and try again.");
  }
}

async function put(cache, part, blob) {
  try {
    await cache.put(part.name, new Response(blob, { headers: { "Content-Length": blob.size } }));
    return true;
  } catch {
    return false; // no room, or not allowed
  }
}

async function hash(blob) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
