// Rewrites a GGUF's small types as Q8_0, which llama.cpp's WebAssembly multiplies fastest.
//
// The weights stay the same: each of these types has blocks of 32 weights that are integers of at most 8 bits times
// a scale, and so has Q8_0. The download stays small; only the copy in memory grows.

import { align, HEAD_BYTES, readTensors } from "./gguf.js";

const BLOCK = 32; // weights
const Q8_0 = { type: 8, blockBytes: 34 };
const IQ4_NL_VALUES = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
const MXFP4_VALUES = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]; // twice the values
const Q4_0_VALUES = Array.from({ length: 16 }, (_, code) => code - 8);

/** By ggml's number of a type: bytes of a block, and what writes it as a block of Q8_0. */
const TYPES = {
  2: { blockBytes: 18, expand: codesAfterScale(Q4_0_VALUES) },
  6: { blockBytes: 22, expand: expandQ5_0 },
  20: { blockBytes: 18, expand: codesAfterScale(IQ4_NL_VALUES) },
  39: { blockBytes: 17, expand: expandMxfp4 },
};

/**
 * Rewrite a GGUF's small types as Q8_0.
 *
 * @param {Blob} blob the GGUF.
 * @param {number} maxBytes greatest size of the result.
 * @returns {Promise<Blob>} the same model; `blob` itself if nothing can be rewritten, if it would grow too large, or
 *   if its header is too long.
 * @throws {RangeError} the file is damaged.
 */
export async function expandTypes(blob, maxBytes) {
  const found = await readTensors(blob).catch((error) => {
    if (blob.size <= HEAD_BYTES) throw error;
  });
  if (!found) return blob; // llama.cpp tells whether it is damaged
  const { head, tensors, dataStart, alignment } = found;
  const ends = tensors.map(({ offset }) => offset).sort((one, other) => one - other);
  const sizes = tensors.map((tensor) => sizeAfter(tensor, ends, blob.size - dataStart));
  const size = sizes.reduce((sum, bytes) => sum + align(bytes, alignment), dataStart);
  if (size > maxBytes || !tensors.some(({ type }) => TYPES[type])) return blob;
  const view = new DataView(head.buffer);
  const parts = [head];
  let offset = 0;
  for (const [index, tensor] of tensors.entries()) {
    view.setBigUint64(tensor.offsetAt, BigInt(offset), true);
    const start = dataStart + tensor.offset;
    if (TYPES[tensor.type]) {
      view.setUint32(tensor.typeAt, Q8_0.type, true);
      const data = blob.slice(start, start + blocks(tensor) * TYPES[tensor.type].blockBytes);
      // A Blob's content is no longer in this page's memory.
      parts.push(new Blob([expandBlocks(new Uint8Array(await data.arrayBuffer()), TYPES[tensor.type])]));
    } else parts.push(blob.slice(start, start + sizes[index]));
    const padded = align(sizes[index], alignment);
    parts.push(new Uint8Array(padded - sizes[index]));
    offset += padded;
  }
  return new Blob(parts);
}

const blocks = ({ weights }) => weights / BLOCK;

/** Bytes of a tensor in the result. Those of other types end where the next one starts, or with the data. */
function sizeAfter(tensor, starts, dataBytes) {
  if (TYPES[tensor.type]) return blocks(tensor) * Q8_0.blockBytes;
  return (starts.find((start) => start > tensor.offset) ?? dataBytes) - tensor.offset;
}

function expandBlocks(from, { blockBytes, expand }) {
  const count = from.length / blockBytes;
  const to = new Uint8Array(count * Q8_0.blockBytes);
  for (let n = 0; n < count; n++) expand(from, n * blockBytes, to, n * Q8_0.blockBytes);
  return to;
}

/** For blocks of a scale and 16 bytes with two codes each: those of the weights 0 to 15 are the low halves. */
function codesAfterScale(values) {
  return (from, at, to, target) => {
    to[target] = from[at];
    to[target + 1] = from[at + 1];
    writeCodes(values, from, at + 2, to, target + 2);
  };
}

function writeCodes(values, from, at, to, target) {
  for (let n = 0; n < 16; n++) {
    const codes = from[at + n];
    to[target + n] = values[codes & 15];
    to[target + n + 16] = values[codes >> 4];
  }
}

/** A scale, 32 high bits, and 16 bytes with the low bits. */
function expandQ5_0(from, at, to, target) {
  to[target] = from[at];
  to[target + 1] = from[at + 1];
  for (let n = 0; n < 16; n++) {
    const codes = from[at + 6 + n];
    const low = (from[at + 2 + (n >> 3)] >> (n & 7)) & 1;
    const high = (from[at + 4 + (n >> 3)] >> (n & 7)) & 1;
    to[target + 2 + n] = ((codes & 15) | (low << 4)) - 16;
    to[target + 18 + n] = ((codes >> 4) | (high << 4)) - 16;
  }
}

/** A power of two, and 16 bytes of codes. */
function expandMxfp4(from, at, to, target) {
  const scale = halfPowerOfTwo(from[at] - 128);
  to[target] = scale & 255;
  to[target + 1] = scale >> 8;
  writeCodes(MXFP4_VALUES, from, at + 1, to, target + 2);
}

/** The bits of 2^exponent as a 16-bit float, or of the nearest one. */
function halfPowerOfTwo(exponent) {
  if (exponent > 15) return 30 << 10;
  if (exponent >= -14) return (exponent + 15) << 10;
  return exponent >= -24 ? 1 << (exponent + 24) : 0;
}
