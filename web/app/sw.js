// Service worker: caches all files of the page, verified by their hashes, and serves them offline, with the
// headers that WebAssembly threads require. site.py prepends SHELL, the hash of each file, and VERSION, which
// changes with any file. A new version waits until no page of the old one is open: such a page may have files to fetch.

const CACHE_PREFIX = `thirteen-page-${self.registration.scope}-`; // other folders of the site have their own
const CACHE_NAME = CACHE_PREFIX + VERSION;
const ISOLATION_HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

self.addEventListener("install", (event) => event.waitUntil(cacheFiles()));
self.addEventListener("activate", (event) => event.waitUntil(deleteOldCaches().then(() => self.clients.claim())));
self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  const file = url.href.replace(self.registration.scope, "").split(/[?#]/)[0] || "index.html";
  if (event.request.method === "GET" && file in SHELL) event.respondWith(cachedResponse(file));
});

async function cacheFiles() {
  const cache = await caches.open(CACHE_NAME);
  await Promise.all(
    Object.entries(SHELL).map(async ([file, integrity]) => {
      const response = await fetch(file, { integrity, cache: "no-cache" });
      if (!response.ok) throw new TypeError(`${file}: status ${response.status}`);
      await cache.put(file, response);
    }),
  );
}

async function deleteOldCaches() {
  const old = (await caches.keys()).filter((name) => name.startsWith(CACHE_PREFIX) && name !== CACHE_NAME);
  await Promise.all(old.map((name) => caches.delete(name)));
}

async function cachedResponse(file) {
  const cached = await (await caches.open(CACHE_NAME)).match(file);
  if (!cached) return fetch(file); // the browser has evicted it
  const headers = new Headers(cached.headers);
  for (const [name, value] of Object.entries(ISOLATION_HEADERS)) headers.set(name, value); // a second value voids both
  return new Response(cached.body, { status: 200, headers });
}
