// View of a turn: a question and its answer, with marked equations, final value, votes and statistics.

import { isCode, resultNodes, statsLine, tallyItems, tallyNote } from "./answer.js";
import { describeAnswer } from "./answer_text.js";
import { copyText } from "./copy.js";
import { element } from "./element.js";
import { keepReachable, watchScrolling } from "./scrolling.js";
import { update } from "./tree.js";

const COPIED_MS = 1500;
let count = 0; // for unique ids

export class TurnView {
  #steps = [];
  #text = "";
  #thinking = element("p", {});
  #thought = element("details", { class: "thought" }, element("summary", {}, "Thoughts"), this.#thinking);
  #frame = 0; // the animation frame that will draw the text
  #result = element("p", { class: "result" });
  #content = element("div", { class: "answer" });
  #tally = element("ul", { class: "tally", "aria-label": "Result of the vote" });
  #counted = element("p", { class: "small" });
  #stats = element("p", { class: "stats small" });

  /**
   * @param {{question: string, text: string, answer: ?object}} turn
   * @param {Object<string, function>} handlers `onEdit()` and `onAgain()` are called when the question is to be
   *   edited or asked again, `onCopied(message)` when the answer has been copied.
   */
  constructor(turn, { onEdit, onAgain, onCopied }) {
    const id = `question-${++count}`;
    const described = { type: "button", class: "secondary", "aria-describedby": id };
    const edit = element("button", described, "Edit");
    const again = element("button", { ...described, title: "Another answer, without the turns after it" }, "Regenerate");
    const copy = element("button", described, "Copy");
    edit.addEventListener("click", onEdit);
    again.addEventListener("click", onAgain);
    copy.addEventListener("click", async () => {
      const copied = await copyText(this.#text).then(() => "Copied", () => "Not copied");
      copy.textContent = copied;
      setTimeout(() => (copy.textContent = "Copy"), COPIED_MS);
      onCopied(copied);
    });
    const head = element("div", { class: "head" }, element("h2", { id, class: "question" }, turn.question), edit);
    const foot = element("div", { class: "foot" }, this.#stats, copy, again);
    const parts = [head, this.#result, this.#thought, this.#content, this.#tally, this.#counted, foot];
    watchScrolling(this.#content);
    this.addThought({ text: "" });
    this.element = element("article", { class: "turn", "aria-labelledby": id }, ...parts);
    if (turn.answer) this.finish(turn.answer);
    else this.stop("No answer", turn.text);
  }

  /** The text received so far. */
  get text() {
    return this.#text;
  }

  /** Show a progress indicator, with how far the answers agree. */
  start(progress = "") {
    const message = `Working it out${progress && `: ${progress}`}`;
    const dots = element("span", { class: "dots", "aria-hidden": "true" }, ...[1, 2, 3].map(() => element("span", {})));
    this.element.classList.add("running");
    this.#result.replaceChildren(dots, element("span", { class: "small" }, message));
  }

  /** Append text of the thought before the answer, which is folded. */
  addThought({ text }) {
    this.#thinking.append(text);
    this.#thought.hidden = !this.#thinking.textContent;
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
    this.#thinking.replaceChildren();
    this.addThought({ text: answer.thinking ?? "" });
    this.#draw();
    this.element.classList.remove("running");
    this.#result.replaceChildren(...(isCode(answer) ? [] : resultNodes(answer)));
    this.#counted.textContent = tallyNote(answer.tally);
    this.#tally.replaceChildren(...tallyItems(answer.tally));
    this.#stats.textContent = statsLine(answer);
    keepReachable(this.#content);
  }

  /** Show a message instead of the result; the text received so far stays. */
  stop(message, text = this.#text) {
    this.#text = text;
    this.#draw();
    this.element.classList.remove("running");
    this.#result.replaceChildren(element("span", { class: "small" }, message));
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    update(this.#content, describeAnswer(this.#text, this.#steps));
  }
}
