// What this device or browser lacks for the model, each in a sentence.

const LARGEST = 2 ** 31 - 1; // bytes of one file in wllama: its seek takes no more
const SHARE = 0.5; // of a device's memory that one page can count on
const SIMD = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253],
  ...[98, 11],
);

/**
 * @param {{file_bytes: number, needed_bytes: number}} model
 * @returns {?string} why the model cannot run here; null if nothing is known to be in the way.
 */
export function lack({ file_bytes, needed_bytes }) {
  if (!window.isSecureContext) return "This page has to come over HTTPS, or from this device itself.";
  if (typeof WebAssembly !== "object") return "This browser cannot run WebAssembly, which the model needs.";
  if (!WebAssembly.validate(SIMD)) {
    return "This browser or processor has no SIMD for WebAssembly, which the model needs; a newer one has.";
  }
  if (file_bytes > LARGEST) return `The model has ${gigabytes(file_bytes)}, but a browser takes at most 2 GB.`;
  const memory = SHARE * (navigator.deviceMemory ?? Infinity) * 2 ** 30;
  if (needed_bytes > memory) {
    const [needed, there] = [gigabytes(needed_bytes), gigabytes(memory)];
    return `The model needs ${needed} of memory, and a page can count on ${there} of this device's.`;
  }
  return null;
}

/** How many threads: all of few cores, half of many, of which only some are quick. */
export function threads() {
  const cores = navigator.hardwareConcurrency || 1;
  return cores <= 4 ? cores : Math.min(8, Math.floor(cores / 2));
}

export function gigabytes(bytes) {
  return bytes < 1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
