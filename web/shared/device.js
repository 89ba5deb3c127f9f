// Checks whether this device and browser can run the model.

const FILE_BYTES_MAX = 2 ** 31 - 1; // wllama's seek offset is a signed 32-bit integer
const USABLE_MEMORY = 0.5; // share of the device's memory that a page can use
const UNKNOWN_GB = 2; // of memory, where a browser does not tell: too little to expand a large file
// A WebAssembly module with one SIMD instruction.
const SIMD_MODULE = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253],
  ...[98, 11],
);
const MEMORY64_MODULE = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 5, 3, 1, 4, 1); // one page, 64-bit addresses

/**
 * @param {{needed_bytes: number}} model
 * @returns {?string} a sentence that says why the model cannot run here; null if no reason is known.
 */
export function unsupportedReason({ needed_bytes }) {
  if (globalThis.isSecureContext === false) return "This page requires HTTPS, or localhost.";
  if (typeof WebAssembly !== "object") return "The model requires WebAssembly, which this browser does not support.";
  if (!WebAssembly.validate(SIMD_MODULE)) {
    return "The model requires WebAssembly SIMD, which this browser or processor does not support.";
  }
  if (!WebAssembly.validate(MEMORY64_MODULE)) {
    return "The model requires 64-bit WebAssembly memory, which this browser does not support: use a newer one, or another.";
  }
  if (needed_bytes > usableBytes()) {
    return `The model needs ${formatBytes(needed_bytes)} of memory; a page on this device can use ${formatBytes(usableBytes())}.`;
  }
  return null;
}

/** Greatest size to which the file can grow in memory. */
export function expandedBytesMax({ file_bytes, needed_bytes }) {
  return Math.min(FILE_BYTES_MAX, usableBytes(UNKNOWN_GB) - needed_bytes + file_bytes);
}

const usableBytes = (unknown = Infinity) => USABLE_MEMORY * (globalThis.navigator?.deviceMemory ?? unknown) * 2 ** 30;

/** Number of threads: up to 4 cores, all of them; above, half of them, since only some cores are fast. */
export function threads() {
  const cores = globalThis.navigator?.hardwareConcurrency || 1;
  return cores <= 4 ? cores : Math.min(8, Math.floor(cores / 2));
}

export function formatBytes(bytes) {
  return bytes < 1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
