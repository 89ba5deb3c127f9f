// Rewrites a GGUF's small types as Q8_0, which llama.cpp's WebAssembly multiplies fastest. The weights stay the same:
// these types have blocks of 32 integers of at most 8 bits and a scale, and so has Q8_0. The download stays small.

const Q8_0_BYTES = 34; // of a block
const [Q4_0, Q5_0, Q8_0, IQ4_NL, MXFP4] = [2, 6, 8, 20, 39]; // ggml's numbers

/** By type: bytes of a block, which ends with 16 bytes of codes, and the values of the codes. */
const TYPES = {
  [Q4_0]: { blockBytes: 18, values: Array.from({ length: 16 }, (_, code) => code - 8) },
  [Q5_0]: { blockBytes: 22, values: Array.from({ length: 32 }, (_, code) => code - 16) },
  [IQ4_NL]: { blockBytes: 18, values: [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113] },
  [MXFP4]: { blockBytes: 17, values: [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12] }, // twice the values
};

/**
 * The same model with its small types as Q8_0; the blob itself without any, or if it would grow beyond `maxBytes`.
 *
 * @param {Blob} blob the GGUF.
 * @param {{alignment: number, tensors: object[]}} layout of its data; see tensor_layout() in site.py.
 * @param {number} maxBytes
 * @returns {Promise<Blob>}
 */
export async function expandTypes(blob, { alignment, tensors }, maxBytes) {
  const small = tensors.filter(({ type }) => TYPES[type]);
  const growth = small.reduce((sum, { type, blocks }) => sum + blocks * (Q8_0_BYTES - TYPES[type].blockBytes), 0);
  if (!growth || blob.size + growth > maxBytes) return blob;
  const head = await blob.slice(0, tensors[0].start).arrayBuffer();
  const view = new DataView(head);
  const parts = [head];
  let offset = 0;
  for (const [index, { type, blocks, start, type_at }] of tensors.entries()) {
    const end = tensors[index + 1]?.start ?? blob.size;
    let part = blob.slice(start, end); // with the padding after it
    if (TYPES[type]) {
      const bytes = expandBlocks(new Uint8Array(await part.arrayBuffer()), type, blocks);
      part = new Blob([bytes, new Uint8Array(-bytes.length & (alignment - 1))]); // no longer in this page's memory
      view.setUint32(type_at, Q8_0, true);
    }
    view.setBigUint64(type_at + 4, BigInt(offset), true);
    parts.push(part);
    offset += part.size;
  }
  return new Blob(parts);
}

function expandBlocks(from, type, blocks) {
  const { blockBytes, values } = TYPES[type];
  const to = new Uint8Array(blocks * Q8_0_BYTES);
  for (let block = 0; block < blocks; block++) {
    const [start, target] = [block * blockBytes, block * Q8_0_BYTES];
    const scale = type === MXFP4 ? halfPowerOfTwo(from[start] - 128) : from[start] | (from[start + 1] << 8);
    to[target] = scale & 255;
    to[target + 1] = scale >> 8;
    for (let n = 0; n < 16; n++) {
      const codes = from[start + blockBytes - 16 + n]; // of weights n and n + 16
      const fifth = (at) => (type === Q5_0 ? ((from[start + at + (n >> 3)] >> (n & 7)) & 1) << 4 : 0);
      to[target + 2 + n] = values[(codes & 15) | fifth(2)];
      to[target + 18 + n] = values[(codes >> 4) | fifth(4)];
    }
  }
  return to;
}

/** The bits of 2^exponent as a 16-bit float, or of the nearest one. */
function halfPowerOfTwo(exponent) {
  if (exponent > 15) return 30 << 10;
  if (exponent >= -14) return (exponent + 15) << 10;
  return exponent >= -24 ? 1 << (exponent + 24) : 0;
}
