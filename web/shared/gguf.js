// Reads where the tensors of a GGUF are.

/** Bytes that are searched for the header; that of Llama 3 has 8 MB, most of it the vocabulary. */
export const HEAD_BYTES = 32 * 2 ** 20;
const SCALAR_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, null, null, 8, 8, 8]; // of a metadata value, by its type
const [STRING, ARRAY] = [8, 9];
const ALIGNMENT = 32;

/** Reads little-endian numbers one after the other. */
class Reader {
  constructor(bytes) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
  }

  uint32() {
    return this.view.getUint32((this.at += 4) - 4, true);
  }

  uint64() {
    return Number(this.view.getBigUint64((this.at += 8) - 8, true));
  }

  text() {
    const length = this.uint64();
    this.at += length;
    return new TextDecoder().decode(new Uint8Array(this.view.buffer, this.view.byteOffset + this.at - length, length));
  }

  skipValue(type) {
    if (type === STRING) this.skip(this.uint64());
    else if (type === ARRAY) {
      const [element, count] = [this.uint32(), this.uint64()];
      if (element === STRING) for (let n = 0; n < count; n++) this.skipValue(STRING);
      else this.skip(count * scalarBytes(element));
    } else this.skip(scalarBytes(type));
  }

  skip(bytes) {
    this.at += bytes;
    if (this.at > this.view.byteLength) throw new RangeError("the header is too long");
  }
}

function scalarBytes(type) {
  if (!SCALAR_BYTES[type]) throw new RangeError(`a metadata value has the unknown type ${type}`);
  return SCALAR_BYTES[type];
}

/**
 * Read the tensors' places from the head of a GGUF.
 *
 * @param {Blob} blob the GGUF.
 * @returns {Promise<{head: Uint8Array, tensors: Array<object>, dataStart: number, alignment: number}>} `head`: all
 *   before the data. Of each tensor: `type`, its number in ggml; `weights`; `offset` of its data after `dataStart`; and where in
 *   the head its type and its offset stand, `typeAt` and `offsetAt`.
 * @throws {RangeError} the file is damaged, or its header longer than HEAD_BYTES.
 */
export async function readTensors(blob) {
  const reader = new Reader(new Uint8Array(await blob.slice(0, HEAD_BYTES).arrayBuffer()));
  reader.at = 8; // magic and version
  const [tensorCount, fieldCount] = [reader.uint64(), reader.uint64()];
  let alignment = ALIGNMENT;
  for (let n = 0; n < fieldCount; n++) {
    const [name, type] = [reader.text(), reader.uint32()];
    if (name === "general.alignment") alignment = reader.view.getUint32(reader.at, true);
    reader.skipValue(type);
  }
  const tensors = Array.from({ length: tensorCount }, () => readTensor(reader));
  const dataStart = align(reader.at, alignment);
  return { head: new Uint8Array(reader.view.buffer, 0, dataStart).slice(), tensors, dataStart, alignment };
}

function readTensor(reader) {
  reader.text(); // its name
  let weights = 1;
  for (let n = reader.uint32(); n > 0; n--) weights *= reader.uint64();
  const typeAt = reader.at;
  const type = reader.uint32();
  const offsetAt = reader.at;
  return { type, weights, offset: reader.uint64(), typeAt, offsetAt };
}

export const align = (bytes, alignment) => Math.ceil(bytes / alignment) * alignment;
