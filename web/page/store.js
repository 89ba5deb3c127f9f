// JSON values in the browser's storage. Where storage is unavailable (private windows), nothing is stored.

/** @returns the value stored under a name in "localStorage" or "sessionStorage"; null if there is none. */
export function load(storage, name) {
  try {
    return JSON.parse(window[storage].getItem(name));
  } catch {
    return null;
  }
}

/** Store a value under a name. */
export function save(storage, name, value) {
  try {
    window[storage].setItem(name, JSON.stringify(value));
  } catch {
    // unavailable or full
  }
}
