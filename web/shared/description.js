// The description of a model, model.json, which `thirteen web` writes into its folder.

import { LoadError, reasonOf } from "./errors.js";

/**
 * Fetch the description of a model. Without a connection it is that of the stored model, if there is one.
 *
 * @param {string} base address of the model's folder.
 * @param {AbortSignal} signal aborts the request.
 * @returns {Promise<object>} as Model.load() and modelBlob() take it.
 * @throws {LoadError} there is no connection, or no model at the address.
 */
export async function fetchDescription(base, signal) {
  const address = descriptionAddress(base);
  const response = await fetch(address, { signal }).catch(async (error) => {
    signal.throwIfAborted();
    const stored = await globalThis.caches?.match(address).catch(() => null);
    if (stored) return stored;
    throw new LoadError(
      `The model at ${base} cannot be read: ${reasonOf(error)}. Check the address and the connection.`,
    );
  });
  if (!response.ok) throw new LoadError(`There is no model at ${base}: model.json has status ${response.status}.`);
  const description = await response.json().catch(() => null);
  signal.throwIfAborted();
  if (!isDescription(description)) throw new LoadError(`There is no model at ${base}: model.json describes none.`);
  return description;
}

export const descriptionAddress = (base) => new URL("model.json", base).href;

function isDescription(found) {
  const counts = [found?.file_bytes, found?.needed_bytes, found?.context];
  const texts = [found?.name, found?.sha256];
  return (
    counts.every((count) => Number.isSafeInteger(count) && count > 0) &&
    texts.every((text) => typeof text === "string") &&
    Array.isArray(found.parts) &&
    found.parts.every((part) => typeof part?.name === "string" && typeof part.sha256 === "string" && part.bytes > 0)
  );
}
