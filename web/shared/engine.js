// llama.cpp in WebAssembly, by wllama, with the settings that were measured to be fast.

import { expandedBytesMax, threads } from "./device.js";
import { expandTypes } from "./expand.js";
import { Wllama } from "./wllama/index.min.js";

const NO_LOGGER = { debug() {}, log() {}, warn() {}, error() {} };
const WASM = new URL("wllama/wllama.wasm", import.meta.url).href;
const SETTINGS = {
  n_batch: 64,
  n_parallel: 1,
  n_gpu_layers: 0,
  flash_attn: true, // which a KV cache in q8_0 requires
  warmup: false,
};

/**
 * Load a model into wllama.
 *
 * @param {Blob} blob the GGUF.
 * @param {{context: number, kv?: string, file_bytes: number, needed_bytes: number}} description `kv`: type of the KV
 *   cache.
 * @returns {Promise<Wllama>}
 * @throws {Error} there is too little memory, or llama.cpp rejects the file.
 */
export async function loadEngine(blob, description) {
  const wllama = new Wllama({ default: WASM }, { suppressNativeLog: true, logger: NO_LOGGER });
  wllama.setCompat(null); // otherwise wllama downloads a fallback build from another site
  try {
    const expanded = await expandTypes(blob, expandedBytesMax(description));
    const kv = description.kv ?? "f16";
    const params = { n_ctx: description.context, n_threads: threads(), cache_type_k: kv, cache_type_v: kv };
    await wllama.loadModel([expanded], { ...SETTINGS, ...params });
    if (!wllama.getLoadedContextInfo().success) throw new Error("llama.cpp rejects it");
  } catch (error) {
    await wllama.exit().catch(() => {});
    throw error;
  }
  return wllama;
}
