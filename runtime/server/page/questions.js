// The last questions: kept in this browser, shown as a list from which one can be asked again.

import { element } from "./element.js";
import { load, save } from "./store.js";

const NAME = "thirteen.questions";
const MOST = 20;

export class Questions {
  /**
   * @param {HTMLElement} box hidden while there are none.
   * @param {HTMLElement} list where they are shown.
   * @param {(question: string) => void} chosen called with the one that was clicked.
   */
  constructor(box, list, chosen) {
    Object.assign(this, { box, list, chosen });
    this.#draw();
  }

  /**
   * Put a question first; asked before, it moves there.
   *
   * @param {{question: string, value: ?string, verified: boolean}} entry
   */
  put(entry) {
    const others = this.#load().filter(({ question }) => question !== entry.question);
    save("localStorage", NAME, [entry, ...others].slice(0, MOST));
    this.#draw();
  }

  /** Forget all of them. */
  clear() {
    save("localStorage", NAME, []);
    this.#draw();
  }

  #load() {
    const kept = load("localStorage", NAME); // by whatever version of this page
    return Array.isArray(kept) ? kept.filter((entry) => typeof entry?.question === "string") : [];
  }

  #draw() {
    const entries = this.#load();
    this.box.hidden = entries.length === 0;
    this.list.replaceChildren(...entries.map((entry) => element("li", {}, this.#button(entry))));
  }

  #button({ question, value, verified }) {
    const mark = verified ? [" ", element("span", { role: "img", "aria-label": "verified" }, "✓")] : [];
    const result = element("span", { class: verified ? "past ok" : "past" }, value ?? "", ...mark);
    const asked = element("span", {}, question);
    const button = element("button", { type: "button", title: question }, asked, result);
    button.addEventListener("click", () => this.chosen(question));
    return button;
  }
}
