// The list of stored conversations, shown as buttons.

import { clearConversations, loadConversations, storeConversation } from "./conversations.js";
import { element } from "./element.js";

export class History {
  #current = ""; // id of the conversation that is shown

  /**
   * @param {HTMLElement} box hidden while there are no conversations.
   * @param {HTMLElement} list shows them, each by its first question.
   * @param {(id: string) => void} onSelect called with the conversation that is clicked.
   */
  constructor(box, list, onSelect) {
    Object.assign(this, { box, list, onSelect });
    this.#draw();
  }

  /** Tell which conversation is shown. */
  select({ id }) {
    this.#current = id;
    this.#draw();
  }

  /** Store the conversation that is shown. */
  put(conversation) {
    storeConversation(conversation);
    this.select(conversation);
  }

  /** Remove all conversations. */
  clear() {
    clearConversations();
    this.#draw();
  }

  #draw() {
    const conversations = loadConversations();
    this.box.hidden = conversations.length === 0;
    this.list.replaceChildren(...conversations.map((found) => element("li", {}, this.#button(found))));
  }

  #button({ id, turns }) {
    const current = id === this.#current ? { "aria-current": "true" } : {};
    const title = turns[0].question;
    const button = element("button", { type: "button", title, ...current }, title);
    button.addEventListener("click", () => this.onSelect(id));
    return button;
  }
}
