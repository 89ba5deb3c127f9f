// The conversation that is shown: its turns, and the answer that is being generated.

import { agreement, isCode, resultSentence } from "./answer.js";
import { streamAnswer } from "./client.js";
import { newConversation } from "./conversations.js";
import { follow, watchTurns } from "./follow.js";
import { TurnView } from "./turn.js";

const TURNS_MAX = 50; // sent with a question; the server keeps those for which the model's context has room
const SPOKEN_CHARS = 1000; // of an answer's text

export class Chat {
  #conversation = newConversation();
  #views = [];
  #running = null; // AbortController of the current answer
  #ended = Promise.resolve(); // fulfilled when the current answer has ended

  /**
   * @param {HTMLElement} list shows the turns.
   * @param {HTMLElement} announcement a live region, for screen readers.
   * @param {Object<string, function>} handlers `onEdit(index)` and `onAgain(index)` are called when a turn's question
   *   is to be edited or asked again, `onChange(conversation)` when a conversation has changed.
   */
  constructor(list, announcement, handlers) {
    Object.assign(this, { list, announcement, handlers });
    watchTurns(list);
  }

  /** Whether an answer is being generated. */
  get running() {
    return this.#running !== null;
  }

  /** Questions of the conversation, in their order. */
  get questions() {
    return this.#conversation.turns.map(({ question }) => question);
  }

  /** Stop the current answer, and wait until it has ended. */
  async stop() {
    this.#running?.abort();
    await this.#ended;
  }

  /** Show a conversation, by default a new one. */
  async open(conversation = newConversation()) {
    await this.stop();
    this.#remove(0);
    this.#conversation = conversation;
    conversation.turns.forEach((turn) => this.#add(turn));
    follow(this.#views.at(-1)?.element ?? null);
  }

  /** Mark the turns from an index on as to be replaced; null marks none. */
  mark(from) {
    this.#views.forEach((view, index) => view.element.classList.toggle("edited", from !== null && index >= from));
  }

  /**
   * Ask a question and show its answer.
   *
   * @param {{question: string, model?: string, effort: string, system?: string, temperature?: number}} request
   * @param {?number} from index of the turn that this one and no others after it replace; null replaces none.
   * @returns {Promise<boolean>} whether the replaced turns are back, because it was stopped before any text; rejected
   *   with a ServerError if there is no complete answer. If there is none of its text either, they are back, too.
   */
  ask(request, from) {
    const conversation = this.#conversation;
    const replaced = conversation.turns.splice(from ?? Infinity);
    this.#remove(conversation.turns.length);
    const turns = earlierTurns(conversation);
    const turn = { question: request.question, text: "", answer: null };
    conversation.turns.push(turn);
    const view = this.#add(turn);
    view.start();
    follow(view.element);
    this.handlers.onChange(conversation);
    this.announcement.textContent = "Working it out";
    this.#running = new AbortController();
    const events = streamAnswer({ ...request, turns }, this.#running.signal);
    const unanswered = () => !turn.text && !turn.answer && replaced.length > 0;
    const answered = this.#receive(events, turn, view)
      .then(unanswered)
      .finally(() => {
        if (unanswered()) this.#restore(replaced);
        this.#end(conversation);
      });
    this.#ended = answered.catch(() => {});
    return answered;
  }

  async #receive(events, turn, view) {
    try {
      for await (const event of events) this.#show(event, turn, view);
    } catch (error) {
      const stopped = this.#running.signal.aborted;
      view.stop((this.announcement.textContent = stopped ? "Stopped" : "No answer"));
      turn.text = view.text;
      if (!stopped) throw error;
    }
  }

  #show({ event, data }, turn, view) {
    if (event === "thinking") view.addThought(data);
    if (event === "text") view.addText(data);
    if (event === "step") view.addStep(data);
    if (event === "tally") view.start(agreement(data));
    if (event !== "answer") return;
    turn.answer = data;
    view.finish(data);
    const result = isCode(data) ? "Code. " : resultSentence(data);
    this.announcement.textContent = `${result}${data.text.slice(0, SPOKEN_CHARS)}`;
  }

  /** Put back the turns that the last one was to replace. */
  #restore(replaced) {
    const { turns } = this.#conversation;
    turns.pop();
    this.#remove(turns.length);
    turns.push(...replaced);
    replaced.forEach((turn) => this.#add(turn));
  }

  #end(conversation) {
    this.#running = null;
    this.handlers.onChange(conversation);
  }

  #add(turn) {
    const index = this.#views.length;
    const { onEdit, onAgain } = this.handlers;
    const onCopied = (message) => (this.announcement.textContent = message);
    const view = new TurnView(turn, { onEdit: () => onEdit(index), onAgain: () => onAgain(index), onCopied });
    this.#views.push(view);
    this.list.append(view.element);
    return view;
  }

  #remove(from) {
    this.#views.splice(from).forEach((view) => view.element.remove());
  }
}

/** The answered turns, as the server expects them. */
function earlierTurns({ turns }) {
  const answered = turns.filter(({ answer }) => answer);
  return answered.slice(-TURNS_MAX).map(({ question, answer }) => ({ question, answer: answer.text }));
}
