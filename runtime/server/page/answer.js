// An answer on the page: its text as it grows, with every checked step marked; its value, votes and figures.

import { element } from "./element.js";
import { pieces } from "./steps.js";

const LONG = 12; // characters of a value from which on it is set smaller

export class AnswerView {
  #drawn = []; // the pieces of text on the page
  #steps = [];
  #text = "";

  /** @param {Object<string, HTMLElement>} parts box, asked, result, text, tally, figures. */
  constructor(parts) {
    this.parts = parts;
  }

  /** Begin with the question and nothing else. */
  begin(question, votes) {
    const { box, asked, result, tally, figures } = this.parts;
    box.hidden = false;
    asked.textContent = question;
    tally.replaceChildren();
    figures.textContent = "";
    const words = votes > 1 ? `Working it out ${votes} times` : "Working it out";
    const dots = element("span", { class: "dots", "aria-hidden": "true" }, ...dotted());
    result.replaceChildren(dots, element("span", { class: "small" }, words));
    [this.#text, this.#steps] = ["", []];
    this.#draw();
  }

  /** Take in more of its text. */
  add({ text }) {
    this.#text += text;
    this.#draw();
  }

  /** Take in that an equation of the text has been checked. */
  check(step) {
    this.#steps.push(step);
    this.#draw();
  }

  /** Take in the whole of it. */
  finish(answer) {
    [this.#text, this.#steps] = [answer.text, answer.steps];
    this.#draw();
    this.parts.result.replaceChildren(...valued(answer));
    this.parts.tally.replaceChildren(...voted(answer.tally));
    this.parts.figures.textContent = figures(answer);
  }

  /** Leave it as far as it came. */
  stop(why) {
    this.parts.result.replaceChildren(element("span", { class: "small" }, why));
  }

  /** Draw what has changed; what stands before it is left alone, so that it can be selected. */
  #draw() {
    const now = pieces(this.#text, this.#steps);
    const same = now.findIndex((piece, place) => !equal(piece, this.#drawn[place]));
    const kept = same < 0 ? now.length : same;
    while (this.parts.text.childNodes.length > kept) this.parts.text.lastChild.remove();
    this.parts.text.append(...now.slice(kept).map(node));
    this.#drawn = now;
  }
}

function equal(piece, other) {
  const written = ({ text, claim, step }) => JSON.stringify([text, claim, step?.ok, step?.computed]);
  return other !== undefined && written(piece) === written(other);
}

function node({ text, claim, step }) {
  if (!step) return document.createTextNode(text);
  if (step.ok) return element("span", { class: "step ok" }, text, claim, mark("✓", "correct"));
  const right = element("ins", {}, step.computed);
  const wrong = mark("✗", `wrong, it is ${step.computed}`);
  return element("span", { class: "step wrong" }, text, element("del", {}, claim), " ", right, wrong);
}

function mark(sign, words) {
  return element("span", { class: "mark", role: "img", "aria-label": words }, sign);
}

function dotted() {
  return [1, 2, 3].map(() => element("span", {}));
}

function valued({ value, verified, steps }) {
  const size = value?.length > LONG ? "value long" : "value";
  const none = element("span", { class: "none" }, "No final number");
  const shown = value === null ? none : element("strong", { class: size }, value);
  const [look, words] = verified ? ["badge ok", "✓ verified"] : ["badge", "not verified"];
  const why = element("span", { class: "small" }, reason(value, verified, steps));
  return [shown, element("span", { class: look }, words), why];
}

function reason(value, verified, steps) {
  const sums = steps.length === 1 ? "1 sum" : `${steps.length} sums`;
  const wrong = steps.filter((step) => !step.ok).length;
  if (!steps.length) return "no sum to check";
  if (wrong) return `${wrong} of ${sums} wrong`;
  return verified || value === null ? `${sums} checked` : `${sums} checked, none gives this number`;
}

/** The values voted for, the most votes first: JavaScript has an order of its own for keys that are numbers. */
function voted(tally) {
  const votes = Object.entries(tally?.votes ?? {}).sort(([, one], [, other]) => other - one);
  return votes.map(([value, count]) => {
    const candidate = element("span", { class: "candidate" }, value);
    const bar = element("progress", { max: tally.ended, value: count, "aria-hidden": "true" });
    const share = element("span", { class: "small" }, `${count} of ${tally.ended}`);
    return element("li", {}, candidate, bar, share);
  });
}

function figures({ usage, timings, stop_reason, model }) {
  const results = usage.completion_tokens - usage.sampled_tokens;
  const cached = usage.cached_tokens ? ` (${usage.cached_tokens} cached)` : "";
  const parts = [
    `${usage.completion_tokens} tokens${results ? ` (${results} by the calculator)` : ""}`,
    `${timings.decode_tokens_per_s.toFixed(1)} tokens/s`,
    `first after ${timings.first_token_s.toFixed(2)} s`,
    `${usage.prompt_tokens} tokens of prompt${cached}`,
    model,
  ];
  if (stop_reason === "length") parts.push("cut off: no tokens left");
  return parts.map((said) => said.replaceAll(" ", "\u00a0")).join("\u00a0· "); // lines end between them only
}
