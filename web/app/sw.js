// Service worker: stores all files of the page and serves them offline, with the headers that WebAssembly threads
// require. site.py prepends FILES and VERSION, which changes with any of them. A new version waits until no page of the
// old one is open, which may have files to fetch.

const CACHE_PREFIX = `thirteen-page-${self.registration.scope}-`; // other folders of the site have their own
const CACHE_NAME = CACHE_PREFIX + VERSION;
const ISOLATION_HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

self.addEventListener("install", (event) => event.waitUntil(storeFiles()));
self.addEventListener("activate", (event) => event.waitUntil(deleteOldCaches().then(() => self.clients.claim())));
self.addEventListener("fetch", (event) => {
  const file = event.request.url.replace(self.registration.scope, "").split(/[?#]/)[0] || "index.html";
  if (event.request.method === "GET" && FILES.includes(file)) event.respondWith(stored(file));
});

async function storeFiles() {
  const cache = await caches.open(CACHE_NAME);
  await cache.addAll(FILES.map((file) => new Request(file, { cache: "no-cache" })));
}

async function deleteOldCaches() {
  const old = (await caches.keys()).filter((name) => name.startsWith(CACHE_PREFIX) && name !== CACHE_NAME);
  await Promise.all(old.map((name) => caches.delete(name)));
}

async function stored(file) {
  const found = await (await caches.open(CACHE_NAME)).match(file);
  if (!found) return fetch(file); // the browser has evicted it
  const headers = new Headers(found.headers);
  for (const [name, value] of Object.entries(ISOLATION_HEADERS)) headers.set(name, value); // a second value voids both
  return new Response(found.body, { headers });
}
