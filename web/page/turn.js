// View of a turn: a question and its answer, as text while it streams, then with the server's value and marks.

import { checksText, statsText, valueText, votesText } from "./answer.js";
import { showText } from "./answer_text.js";
import { button, element } from "./element.js";

let count = 0; // for unique ids

export class TurnView {
  text = ""; // received so far
  #frame = 0; // the animation frame that will draw the text
  #result = element("p", { class: "result" });
  #thinking = element("p", {});
  #thought = element("details", { class: "thought" }, element("summary", {}, "Thoughts"), this.#thinking);
  #content = element("div", { class: "answer", tabindex: "0", role: "group", "aria-label": "Answer" });
  #votes = element("p", { class: "small" });
  #checks = element("p", { class: "checks small" });
  #stats = element("p", { class: "stats small" });

  /** @param {{question: string, text: string, answer: ?object}} turn */
  constructor({ question, text, answer }) {
    const id = `question-${++count}`;
    const copy = button("Copy", { class: "secondary", "aria-describedby": id }, async () => {
      await navigator.clipboard.writeText(this.text);
      copy.textContent = "Copied";
    });
    copy.hidden = !navigator.clipboard; // over plain HTTP from another machine
    const heading = element("h2", { id, class: "question" }, question);
    const foot = element("div", { class: "foot row" }, this.#stats, copy);
    const parts = [heading, this.#result, this.#thought, this.#content, this.#votes, this.#checks, foot];
    this.element = element("article", { class: "turn", "aria-labelledby": id }, ...parts);
    if (answer) this.finish(answer);
    else this.stop(text ? "Stopped" : "Working it out", text);
  }

  /** Show an event of the stream. */
  receive(event, data) {
    if (event === "tally") this.#say(`Working it out: ${votesText(data)}`);
    if (event === "thinking") this.#thinking.append(data.text);
    if (event !== "text") return;
    this.text += data.text;
    this.#frame ||= requestAnimationFrame(() => this.#draw([])); // words may come faster than frames
  }

  /** Show the complete answer. */
  finish(answer) {
    this.text = answer.text;
    this.#thinking.textContent = answer.thinking ?? "";
    this.#draw(answer.steps);
    const value = valueText(answer);
    this.#result.replaceChildren(...(value ? [element("strong", { class: "value" }, value)] : []));
    this.#votes.textContent = votesText(answer.tally);
    this.#checks.textContent = checksText(answer);
    this.#stats.textContent = statsText(answer);
  }

  /** Show a message instead of the result; the text received so far stays. */
  stop(message, text = this.text) {
    this.text = text;
    this.#draw([]);
    this.#say(message);
  }

  #say(message) {
    this.#result.replaceChildren(element("span", { class: "small" }, message));
  }

  #draw(steps) {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    showText(this.#content, this.text, steps);
  }
}
