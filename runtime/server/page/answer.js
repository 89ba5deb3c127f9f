// View of an answer: streamed text with marked equations, final value, votes and statistics.

import { element } from "./element.js";
import { splitSteps } from "./steps.js";

const LONG_VALUE_CHARS = 12; // longer values are shown in a smaller font

export class AnswerView {
  #segments = []; // shown in the text element, one node each
  #steps = [];
  #text = "";

  /** @param {Object<string, HTMLElement>} ui elements: box, prompt, result, text, tally, stats. */
  constructor(ui) {
    this.ui = ui;
  }

  /** Show the question and a progress indicator. */
  start(question, votes) {
    const { box, prompt, result, tally, stats } = this.ui;
    box.hidden = false;
    prompt.textContent = question;
    tally.replaceChildren();
    stats.textContent = "";
    const message = votes > 1 ? `Working it out ${votes} times` : "Working it out";
    const dots = element("span", { class: "dots", "aria-hidden": "true" }, ...threeDots());
    result.replaceChildren(dots, element("span", { class: "small" }, message));
    [this.#text, this.#steps] = ["", []];
    this.#draw();
  }

  /** Append text. */
  addText({ text }) {
    this.#text += text;
    this.#draw();
  }

  /** Mark a checked equation in the text. */
  addStep(step) {
    this.#steps.push(step);
    this.#draw();
  }

  /** Show the complete answer. */
  finish(answer) {
    [this.#text, this.#steps] = [answer.text, answer.steps];
    this.#draw();
    this.ui.result.replaceChildren(...resultNodes(answer));
    this.ui.tally.replaceChildren(...tallyItems(answer.tally));
    this.ui.stats.textContent = formatStats(answer);
  }

  /** Show a message instead of the result; the text received so far stays. */
  stop(message) {
    this.ui.result.replaceChildren(element("span", { class: "small" }, message));
  }

  /** Replace the segments from the first changed one on; earlier nodes stay, so that a selection survives. */
  #draw() {
    const segments = splitSteps(this.#text, this.#steps);
    const changed = segments.findIndex((segment, index) => !isSame(segment, this.#segments[index]));
    const unchanged = changed < 0 ? segments.length : changed;
    while (this.ui.text.childNodes.length > unchanged) this.ui.text.lastChild.remove();
    this.ui.text.append(...segments.slice(unchanged).map(segmentNode));
    this.#segments = segments;
  }
}

function isSame(segment, other) {
  const key = ({ text, claim, step }) => JSON.stringify([text, claim, step?.ok, step?.computed]);
  return other !== undefined && key(segment) === key(other);
}

function segmentNode({ text, claim, step }) {
  if (!step) return document.createTextNode(text);
  if (step.ok) return element("span", { class: "step ok" }, text, claim, mark("✓", "correct"));
  const computed = element("ins", {}, step.computed);
  const cross = mark("✗", `wrong, the result is ${step.computed}`);
  return element("span", { class: "step wrong" }, text, element("del", {}, claim), " ", computed, cross);
}

function mark(sign, label) {
  return element("span", { class: "mark", role: "img", "aria-label": label }, sign);
}

function threeDots() {
  return [1, 2, 3].map(() => element("span", {}));
}

function resultNodes({ value, verified, steps }) {
  const size = value?.length > LONG_VALUE_CHARS ? "value long" : "value";
  const none = element("span", { class: "none" }, "No final number");
  const shown = value === null ? none : element("strong", { class: size }, value);
  const [style, label] = verified ? ["badge ok", "✓ verified"] : ["badge", "not verified"];
  const reason = element("span", { class: "small" }, verificationReason(value, verified, steps));
  return [shown, element("span", { class: style }, label), reason];
}

function verificationReason(value, verified, steps) {
  const equations = steps.length === 1 ? "1 equation" : `${steps.length} equations`;
  const wrong = steps.filter((step) => !step.ok).length;
  if (!steps.length) return "no equation to check";
  if (wrong) return `${wrong} of ${equations} wrong`;
  return verified || value === null ? `${equations} checked` : `${equations} checked, none gives this number`;
}

/** Values by descending votes; the object itself is unordered, since JavaScript sorts integer keys. */
function tallyItems(tally) {
  const votes = Object.entries(tally?.votes ?? {}).sort(([, a], [, b]) => b - a);
  return votes.map(([value, count]) => {
    const candidate = element("span", { class: "candidate" }, value);
    const bar = element("progress", { max: tally.ended, value: count, "aria-hidden": "true" });
    const share = element("span", { class: "small" }, `${count} of ${tally.ended}`);
    return element("li", {}, candidate, bar, share);
  });
}

function formatStats({ usage, timings, stop_reason, model }) {
  const calculated = usage.completion_tokens - usage.sampled_tokens;
  const cached = usage.cached_tokens ? ` (${usage.cached_tokens} cached)` : "";
  const stats = [
    `${usage.completion_tokens} tokens${calculated ? ` (${calculated} by the calculator)` : ""}`,
    `${timings.decode_tokens_per_s.toFixed(1)} tokens/s`,
    `first token after ${timings.first_token_s.toFixed(2)} s`,
    `${usage.prompt_tokens} prompt tokens${cached}`,
    model,
  ];
  if (stop_reason === "length") stats.push("cut off at the token limit");
  return stats.map((stat) => stat.replaceAll(" ", "\u00a0")).join("\u00a0· "); // lines break only between stats
}
