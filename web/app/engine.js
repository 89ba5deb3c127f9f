// llama.cpp in WebAssembly, by wllama, with the settings that were measured to be fast.

import { Wllama } from "../wllama/index.min.js";
import { expandTypes } from "./expand.js";

const FILE_BYTES_MAX = 2 ** 31 - 1; // wllama's seek offset is a signed 32-bit integer
const USABLE_MEMORY = 0.5; // share of the device's memory that a page can use
const UNKNOWN_GB = 2; // where a browser does not tell: too little to expand a large file
const WASM = new URL("../wllama/wllama.wasm", import.meta.url).href;
const NO_LOGGER = { debug() {}, log() {}, warn() {}, error() {} };
// A module with one SIMD instruction and 64-bit memory.
const NEEDED_MODULE = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 5, 3, 1, 4, 1],
  ...[10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
);
const usableBytes = (unknown) => USABLE_MEMORY * (navigator.deviceMemory ?? unknown) * 2 ** 30;

/** @returns {string} why a model of so many bytes cannot run here; empty if no reason is known. */
export function unsupportedReason(bytes) {
  if (!isSecureContext) return "This page requires HTTPS, or localhost.";
  if (!globalThis.WebAssembly?.validate(NEEDED_MODULE)) {
    return "The model requires WebAssembly with SIMD and 64-bit memory: use a newer browser, or another.";
  }
  if (bytes <= usableBytes(Infinity)) return "";
  return `The model has ${formatBytes(bytes)}; a page on this device can use ${formatBytes(usableBytes())} of memory.`;
}

/**
 * Load a model.
 *
 * @param {Blob} blob the GGUF.
 * @param {{context: number, kv: string}} description `kv`: type of the KV cache; also has the layout of expandTypes().
 * @returns {Promise<Wllama>} rejected if there is too little memory, or llama.cpp refuses the file.
 */
export async function loadEngine(blob, { context, kv, ...layout }) {
  const wllama = new Wllama({ default: WASM }, { suppressNativeLog: true, logger: NO_LOGGER });
  wllama.setCompat(null); // otherwise wllama downloads a fallback build from another site
  const cores = navigator.hardwareConcurrency || 1;
  const settings = {
    n_ctx: context,
    n_batch: 64,
    n_parallel: 1,
    n_gpu_layers: 0,
    n_threads: cores <= 4 ? cores : Math.min(8, Math.floor(cores / 2)), // of many, only some are fast
    cache_type_k: kv,
    cache_type_v: kv,
    flash_attn: true, // which a KV cache in q8_0 requires
    warmup: false,
  };
  try {
    const maxBytes = Math.min(FILE_BYTES_MAX, usableBytes(UNKNOWN_GB));
    await wllama.loadModel([await expandTypes(blob, layout, maxBytes)], settings);
    if (!wllama.getLoadedContextInfo().success) throw new Error("llama.cpp rejects it");
  } catch (error) {
    await wllama.exit().catch(() => {});
    throw error;
  }
  return wllama;
}

export const formatBytes = (bytes) => (bytes < 1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`);
