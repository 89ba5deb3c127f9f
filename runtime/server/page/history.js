// History of recent questions: stored in this browser, shown as a list of buttons.

import { element } from "./element.js";
import { load, save } from "./store.js";

const STORAGE_NAME = "thirteen.questions";
const ENTRIES_MAX = 20;

export class QuestionHistory {
  /**
   * @param {HTMLElement} box hidden while the history is empty.
   * @param {HTMLElement} list shows the questions.
   * @param {(question: string) => void} onSelect called with the question that is clicked.
   */
  constructor(box, list, onSelect) {
    Object.assign(this, { box, list, onSelect });
    this.#draw();
  }

  /**
   * Insert a question at the top, or move it there.
   *
   * @param {{question: string, value: ?string, verified: boolean}} entry
   */
  put(entry) {
    const others = this.#load().filter(({ question }) => question !== entry.question);
    save("localStorage", STORAGE_NAME, [entry, ...others].slice(0, ENTRIES_MAX));
    this.#draw();
  }

  /** Remove all questions. */
  clear() {
    save("localStorage", STORAGE_NAME, []);
    this.#draw();
  }

  #load() {
    const stored = load("localStorage", STORAGE_NAME); // possibly written by another version of this page
    return Array.isArray(stored) ? stored.filter((entry) => typeof entry?.question === "string") : [];
  }

  #draw() {
    const entries = this.#load();
    this.box.hidden = entries.length === 0;
    this.list.replaceChildren(...entries.map((entry) => element("li", {}, this.#button(entry))));
  }

  #button({ question, value, verified }) {
    const mark = verified ? [" ", element("span", { role: "img", "aria-label": "verified" }, "✓")] : [];
    const result = element("span", { class: verified ? "past-value ok" : "past-value" }, value ?? "", ...mark);
    const button = element("button", { type: "button", title: question }, element("span", {}, question), result);
    button.addEventListener("click", () => this.onSelect(question));
    return button;
  }
}
