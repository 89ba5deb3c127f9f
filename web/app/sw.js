// Keeps the page on the device: every file is fetched once, against its hash, and then comes from here. With
// the headers that threads need, wherever the folder lies. Above stand SHELL, the files and their hashes, and
// VERSION, which changes with any of them.

const NAME = `thirteen-page-${VERSION}`;
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

self.addEventListener("install", (event) => event.waitUntil(keep().then(() => self.skipWaiting())));
self.addEventListener("activate", (event) => event.waitUntil(forget().then(() => self.clients.claim())));
self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  const file = url.href.replace(self.registration.scope, "").split(/[?#]/)[0] || "index.html";
  if (event.request.method === "GET" && file in SHELL) event.respondWith(kept(file));
});

async function keep() {
  const cache = await caches.open(NAME);
  await Promise.all(
    Object.entries(SHELL).map(async ([file, integrity]) => {
      const response = await fetch(file, { integrity, cache: "no-cache" });
      if (!response.ok) throw new TypeError(`${file}: status ${response.status}`);
      await cache.put(file, response);
    }),
  );
}

async function forget() {
  const old = (await caches.keys()).filter((name) => name.startsWith("thirteen-page-") && name !== NAME);
  await Promise.all(old.map((name) => caches.delete(name)));
}

async function kept(file) {
  const found = await (await caches.open(NAME)).match(file);
  if (!found) return fetch(file); // the browser has made room
  const headers = new Headers([...found.headers, ...Object.entries(ISOLATED)]);
  return new Response(found.body, { status: 200, headers });
}
