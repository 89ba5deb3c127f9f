// Marks the checked equations in an answer: quietly those that are right, and a wrong one with the right value.

import { node } from "./tree.js";

/** A text's newlines and missing characters as markdown-it has them. */
export const normalize = (text) => text.replaceAll(/\r\n?/g, "\n").replaceAll("\0", "\ufffd");

/** The marks of a text. Its pieces are to be asked for once, and in their order in the text. */
export class Marks {
  #text;
  #marks;
  #next = 0; // the first mark that is not shown whole yet

  /**
   * @param {string} source
   * @param {Array<{start: number, result: number, end: number, computed: string, ok: boolean}>} steps checked
   *   equations in text order, with the characters before their parts; those of an earlier version have none.
   */
  constructor(source, steps) {
    const characters = Array.from(source);
    const offset = (count) => normalize(characters.slice(0, count).join("")).length;
    this.#text = normalize(source);
    this.#marks = steps.filter(({ end }) => end).map((step) => {
      const [start, claim, end] = [step.start, step.result, step.end].map(offset);
      return { start, claim, end, step };
    });
  }

  /** Descriptions of a piece of plain text. */
  plain(start, end) {
    const nodes = [];
    let from = start;
    for (const mark of this.#within(end)) {
      const begin = Math.max(mark.start, from);
      const stop = Math.max(begin, Math.min(mark.end, end));
      nodes.push(this.#text.slice(from, begin), this.#step(mark, begin, stop, mark.end <= end));
      from = stop;
    }
    return [...nodes, this.#text.slice(from, end)].filter((part) => part !== "");
  }

  /** Description of a formula, given its end in the text. */
  formula(end, description, display) {
    const marks = [...this.#within(end)];
    if (!marks.length) return description;
    const ok = marks.every(({ step }) => step.ok);
    const signs = marks.filter((mark) => mark.end <= end).flatMap(({ step }) => sign(step));
    return node("span", { class: `${style(ok)}${display ? " display" : ""}` }, description, ...signs);
  }

  /** Marks that begin before an offset; the last may end after it, and is then among the next ones again. */
  *#within(end) {
    while (this.#marks[this.#next]?.start < end) {
      const mark = this.#marks[this.#next];
      yield mark;
      if (mark.end > end) return;
      this.#next++;
    }
  }

  #step({ claim, step }, begin, end, complete) {
    const middle = Math.min(Math.max(claim, begin), end);
    const claimed = this.#text.slice(middle, end);
    const shown = step.ok || !claimed ? claimed : node("del", {}, claimed);
    const parts = [this.#text.slice(begin, middle), shown, ...(complete ? sign(step) : [])];
    return node("span", { class: style(step.ok) }, ...parts.filter((part) => part !== ""));
  }
}

const style = (ok) => (ok ? "step ok" : "step wrong");

function sign({ ok, computed }) {
  if (ok) return [mark("arithmetic right")];
  return [" ", node("ins", {}, computed), mark(`wrong, the right value is ${computed}`)];
}

const mark = (label) => node("span", { class: "mark", role: "img", "aria-label": label });
