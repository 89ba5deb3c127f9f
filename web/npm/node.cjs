// Node.js as far as wllama needs a browser: web workers on threads, and files by fetch(). wllama's workers are
// scripts that take their environment for a browser's.

"use strict";
const { resolveObjectURL } = require("node:buffer");
const { readFileSync } = require("node:fs");
const { readFile } = require("node:fs/promises");
const { join } = require("node:path");
const threads = require("node:worker_threads");
const vm = require("node:vm");

const WASM = "thirteen:wllama.wasm"; // not file:, which wllama's code would read by XMLHttpRequest
const PLACE = "thirteen:worker";

/** A web worker. Its code is that of a Blob's address, which is read before the first message is sent. */
class WebWorker {
  #waiting = [];
  #thread = null;
  #terminated = false;

  constructor(address, { name = "" } = {}) {
    const code = resolveObjectURL(String(address)).text();
    code.then((text) => this.#start(text, name));
  }

  postMessage(data, transfer) {
    if (this.#thread) this.#thread.postMessage(data, transfer);
    else this.#waiting.push([data, transfer]);
  }

  terminate() {
    this.#terminated = true;
    this.#thread?.terminate();
  }

  #start(code, name) {
    if (this.#terminated) return;
    this.#thread = new threads.Worker(__filename, { workerData: { thirteen: { code, name } } });
    this.#thread.on("message", (data) => this.onmessage?.({ data }));
    this.#thread.on("error", (error) => this.onerror?.(error));
    for (const [data, transfer] of this.#waiting) this.#thread.postMessage(data, transfer);
  }
}

/** Run the code of a web worker in this thread. */
function runWorker({ code, name }) {
  const { parentPort } = threads;
  Object.assign(globalThis, {
    self: globalThis,
    name,
    location: { href: PLACE },
    Worker: WebWorker,
    WorkerGlobalScope: class {},
    WorkerNavigator: class {},
    postMessage: (data, transfer) => parentPort.postMessage(data, transfer),
    fetch: async () => {
      const headers = { "Content-Type": "application/wasm" };
      return new Response(readFileSync(join(__dirname, "wllama/wllama.wasm")), { headers });
    },
  });
  parentPort.on("message", (data) => globalThis.onmessage?.({ data }));
  globalThis.process = undefined; // wllama's code would take Node's ways instead
  vm.runInThisContext(code);
}

/** Why the model cannot run in this Node.js; null if it can. */
function unsupportedReason() {
  if (WebAssembly.Suspending && hasMemory64()) return null;
  return `The model requires Node.js 24 or newer, not ${process.version}; the checks of equations do not.`;
}

function hasMemory64() {
  try {
    return Boolean(new WebAssembly.Memory({ address: "i64", initial: 1n }));
  } catch {
    return false;
  }
}

/** fetch(), also of file: addresses. */
async function fetchFile(address, options) {
  if (!String(address).startsWith("file:")) return fetch(address, options);
  return new Response(await readFile(new URL(address)));
}

const NAMES = { self: globalThis, location: { href: PLACE }, Worker: WebWorker };
let calls = 0; // of asBrowser() that are running
let added = []; // the names that they need and that were not there

/** Call a function with the global names that wllama starts its workers by, and no longer. */
async function asBrowser(call) {
  if (!calls++) {
    added = Object.keys(NAMES).filter((name) => !(name in globalThis));
    for (const name of added) globalThis[name] = NAMES[name];
  }
  try {
    return await call();
  } finally {
    if (!--calls) for (const name of added) delete globalThis[name];
  }
}

const task = threads.workerData?.thirteen;
if (task) runWorker(task);
module.exports = { asBrowser, environment: { wasm: WASM, cacheManager: {} }, fetchFile, unsupportedReason };
