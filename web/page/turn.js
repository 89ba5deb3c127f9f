// View of a turn: a question and its answer, with marked equations, final value, votes and statistics.

import { resultNodes, statsLine, tallyItems } from "./answer.js";
import { describeAnswer } from "./answer_text.js";
import { element } from "./element.js";
import { keepReachable, watchScrolling } from "./scrolling.js";
import { update } from "./tree.js";

let count = 0; // for unique ids

export class TurnView {
  #steps = [];
  #text = "";
  #frame = 0; // the animation frame that will draw the text
  #result = element("p", { class: "result" });
  #content = element("div", { class: "answer" });
  #tally = element("ul", { class: "tally", "aria-label": "Result of the vote" });
  #stats = element("p", { class: "stats small" });

  /**
   * @param {{question: string, text: string, answer: ?object}} turn
   * @param {() => void} onEdit called when the question is to be edited.
   */
  constructor(turn, onEdit) {
    const id = `question-${++count}`;
    const edit = element("button", { type: "button", class: "secondary edit", "aria-describedby": id }, "Edit");
    edit.addEventListener("click", onEdit);
    const head = element("div", { class: "head" }, element("h2", { id, class: "question" }, turn.question), edit);
    const parts = [head, this.#result, this.#content, this.#tally, this.#stats];
    watchScrolling(this.#content);
    this.element = element("article", { class: "turn", "aria-labelledby": id }, ...parts);
    if (turn.answer) this.finish(turn.answer);
    else this.stop("No answer", turn.text);
  }

  /** The text received so far. */
  get text() {
    return this.#text;
  }

  /** Show a progress indicator. */
  start(votes) {
    const message = votes > 1 ? `Working it out ${votes} times` : "Working it out";
    const dots = element("span", { class: "dots", "aria-hidden": "true" }, ...[1, 2, 3].map(() => element("span", {})));
    this.#result.replaceChildren(dots, element("span", { class: "small" }, message));
  }

  /** Append text. */
  addText({ text }) {
    this.#text += text;
    this.#frame ||= requestAnimationFrame(() => this.#draw()); // words may come faster than frames
  }

  /** Mark a checked equation in the text. */
  addStep(step) {
    this.#steps.push(step);
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  /** Show the complete answer. */
  finish(answer) {
    [this.#text, this.#steps] = [answer.text, answer.steps];
    this.#draw();
    this.#result.replaceChildren(...resultNodes(answer));
    this.#tally.replaceChildren(...tallyItems(answer.tally));
    this.#stats.textContent = statsLine(answer);
    keepReachable(this.#content);
  }

  /** Show a message instead of the result; the text received so far stays. */
  stop(message, text = this.#text) {
    this.#text = text;
    this.#draw();
    this.#result.replaceChildren(element("span", { class: "small" }, message));
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    update(this.#content, describeAnswer(this.#text, this.#steps));
  }
}
