// Small values that the browser keeps. Where it keeps none (private windows), the page works without.

/** @returns what was saved under the name in "localStorage" or "sessionStorage"; null if nothing was. */
export function load(place, name) {
  try {
    return JSON.parse(window[place].getItem(name));
  } catch {
    return null;
  }
}

/** Keep a value under the name. */
export function save(place, name, value) {
  try {
    window[place].setItem(name, JSON.stringify(value));
  } catch {
    // nothing is kept
  }
}
