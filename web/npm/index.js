// A model that answers math questions where it runs, in a browser or in Node.js, with its equations checked.

import { fetchDescription } from "./description.js";
import { unsupportedReason } from "./device.js";
import { LoadError } from "./errors.js";
import { modelBlob } from "./parts.js";

export { checkClaim, checkSteps, isVerified } from "./calculator.js";
export { LoadError, ModelError } from "./errors.js";

/**
 * Load a model: download its parts, verify them, and bring it into memory.
 *
 * In a browser the parts and their description are cached, of one model per origin; the next load finds them
 * without a network.
 *
 * @param {string | URL} url address of a folder that `thirteen web` wrote; in Node.js also a file: address.
 * @param {{signal?: AbortSignal, onProgress?: (done: number, total: number) => void}} [options] `signal` aborts
 *   the download; `onProgress` is called with the bytes available so far and in total.
 * @returns {Promise<import("./model.js").Model>}
 * @throws {LoadError} there is no model at the address, no connection, a damaged part, or too little memory.
 *   An abort throws the signal's reason.
 * @throws {ModelError} the file is not a supported model.
 */
export async function load(url, { signal = new AbortController().signal, onProgress = () => {} } = {}) {
  const base = folderAddress(url);
  const node = isNode() ? (await import("./node.cjs")).default : null;
  const get = node ? node.fetchFile : (...request) => fetch(...request);
  refuse(node?.unsupportedReason());
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
  try {
    const address = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
    address.pathname = address.pathname.replace(/(?:\/(?:index\.html|model\.json)?)?$/, "/");
    return new URL(".", address).href;
  } catch {
    throw new LoadError(`There is no model at ${url}: give a whole address, such as https://host/folder/.`);
  }
}
