// Estimates when a download ends.

const WINDOW_MS = 5000; // a connection's speed changes

export class TimeLeft {
  #samples = []; // [time in ms, bytes] of the last WINDOW_MS

  constructor(total) {
    this.total = total;
  }

  /** @returns {?number} seconds left at the present speed; null in the first second, and while nothing arrives. */
  seconds(bytes, nowMs = performance.now()) {
    this.#samples.push([nowMs, bytes]);
    while (nowMs - this.#samples[0][0] > WINDOW_MS) this.#samples.shift();
    const [startMs, startBytes] = this.#samples[0];
    if (nowMs - startMs < 1000 || bytes <= startBytes) return null; // fewer: a damaged part is downloaded again
    return ((this.total - bytes) * (nowMs - startMs)) / (bytes - startBytes) / 1000;
  }
}

export function formatSeconds(seconds) {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`;
}
