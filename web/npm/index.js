// A model that answers math questions where it runs, in a browser or in Node.js, with its equations checked.

import { unsupportedReason } from "./device.js";
import { LoadError } from "./errors.js";
import { modelBlob } from "./parts.js";

export { checkClaim, checkSteps, isVerified } from "./calculator.js";
export { LoadError, ModelError } from "./errors.js";

/**
 * Load a model: download its parts, verify them, and bring it into memory.
 *
 * In a browser the parts are cached, of one model per origin, and the next load needs no network.
 *
 * @param {string | URL} url address of a folder that `thirteen web` wrote; in Node.js also a file: address.
 * @param {{signal?: AbortSignal, onProgress?: (done: number, total: number) => void}} [options] `signal` aborts
 *   the download; `onProgress` is called with the bytes available so far and in total.
 * @returns {Promise<import("./model.js").Model>}
 * @throws {LoadError} there is no model at the address, no connection, a damaged part, or too little memory.
 * @throws {ModelError} the file is not a supported model.
 */
export async function load(url, { signal = new AbortController().signal, onProgress = () => {} } = {}) {
  const node = isNode() ? (await import("./node.cjs")).default : null;
  const get = node ? node.fetchFile : (...request) => fetch(...request);
  refuse(node?.unsupportedReason());
  const base = folderAddress(url);
  const description = await fetchDescription(base, signal, get);
  refuse(unsupportedReason(description));
  const report = (bytes) => onProgress(bytes, description.file_bytes);
  const { blob } = await modelBlob(description, base, signal, report, get);
  const loadModel = async () => (await import("./model.js")).Model.load(blob, description, node?.environment);
  return node ? node.asBrowser(loadModel) : loadModel();
}

const isNode = () => Boolean(globalThis.process?.versions?.node) && typeof document === "undefined";

function refuse(reason) {
  if (reason) throw new LoadError(reason);
}

function folderAddress(url) {
  const address = new URL(url, globalThis.document?.baseURI);
  address.pathname = address.pathname.replace(/(?:\/(?:index\.html|model\.json)?)?$/, "/");
  return address.href;
}

async function fetchDescription(base, signal, get) {
  const response = await get(new URL("model.json", base), { signal }).catch((error) => {
    signal.throwIfAborted();
    throw new LoadError(`The model at ${base} cannot be read: ${error.cause?.message ?? error.message}.`);
  });
  if (!response.ok) throw new LoadError(`There is no model at ${base}: model.json has status ${response.status}.`);
  const description = await response.json().catch(() => null);
  if (!isDescription(description)) throw new LoadError(`There is no model at ${base}: model.json describes none.`);
  return description;
}

function isDescription(found) {
  const counts = [found?.file_bytes, found?.needed_bytes, found?.context];
  const texts = [found?.name, found?.sha256];
  return (
    counts.every((count) => Number.isSafeInteger(count) && count > 0) &&
    texts.every((text) => typeof text === "string") &&
    Array.isArray(found.parts) &&
    found.parts.every((part) => typeof part?.name === "string" && typeof part.sha256 === "string")
  );
}
