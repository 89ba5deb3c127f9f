// The page: the conversation that is shown, the form, buttons and keys.

import { resultSentence } from "./answer.js";
import { ABOUT, HAS_VOTES, listModels, setApiKey, streamAnswer } from "./client.js";
import { loadConversations, newConversation, saveConversations, storeConversation } from "./conversations.js";
import { button, element } from "./element.js";
import { TurnView } from "./turn.js";

const TURNS_MAX = 50; // sent with a question
const END_PX = 60; // whoever is so close to the end follows it
const SPOKEN_CHARS = 1000;

const ui = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
let conversation = null;
let running = null; // AbortController of the answer that is being generated

/** Show a conversation; an answer that is being generated for another one ends. */
function show(shown) {
  running?.abort();
  conversation = shown;
  ui.turns.replaceChildren(...shown.turns.map((turn) => new TurnView(turn).element));
  listConversations();
}

function listConversations() {
  const stored = loadConversations();
  const items = stored.map((found) => {
    const title = found.turns[0].question;
    const open = button(title, { title }, () => {
      if (found.id !== conversation.id) show(found);
      ui.history.hidePopover();
    });
    if (found.id === conversation.id) open.ariaCurrent = "true";
    const label = { class: "secondary", "aria-label": `Delete: ${title}` };
    return element("li", {}, open, button("×", label, () => deleteConversations(({ id }) => id === found.id)));
  });
  ui.conversations.replaceChildren(...items);
  history.replaceState(null, "", conversation.turns.length ? `#${conversation.id}` : location.pathname); // for a reload
  ui.past.disabled = !stored.length;
}

function deleteConversations(isOld) {
  saveConversations(loadConversations().filter((found) => !isOld(found)));
  if (isOld(conversation)) {
    conversation.turns = []; // an answer that is being generated would be stored once more
    show(newConversation());
  } else listConversations();
  if (ui.past.disabled) ui.history.hidePopover();
}

/** Ask a question and show its answer. Without any text of it, all is as before, with the question in the form. */
async function ask(question) {
  if (running) return;
  const [current, turn] = [conversation, { question, text: "", answer: null }];
  const sent = request(question, current.turns);
  current.turns = [...current.turns, turn];
  const view = new TurnView(turn);
  following = true;
  ui.turns.append(view.element);
  ui.question.value = "";
  ui.error.textContent = "";
  ui.announcement.textContent = "Working it out";
  setRunning(new AbortController());
  const { signal } = running;
  try {
    turn.answer = await streamAnswer(sent, signal, (event, data) => view.receive(event, data));
    turn.text = turn.answer.text;
    view.finish(turn.answer);
    ui.announcement.textContent = resultSentence(turn.answer) + turn.text.slice(0, SPOKEN_CHARS);
  } catch (error) {
    turn.text = view.text;
    ui.announcement.textContent = signal.aborted ? "Stopped" : "No answer";
    view.stop(ui.announcement.textContent);
    if (!signal.aborted) showError(error);
  }
  setRunning(null);
  if (!turn.text && !turn.answer) {
    current.turns = current.turns.filter((kept) => kept !== turn);
    view.element.remove();
    ui.question.value ||= question;
  }
  storeConversation(current);
  listConversations();
}

function request(question, earlier) {
  const turns = earlier.filter(({ answer }) => answer).slice(-TURNS_MAX);
  return {
    question,
    turns: turns.map((turn) => ({ question: turn.question, answer: turn.answer.text })),
    effort: ui.effort.value,
    ...(ui.model.value && { model: ui.model.value }),
  };
}

function setRunning(controller) {
  running = controller;
  [ui.send.type, ui.send.textContent] = running ? ["button", "Stop"] : ["submit", "Ask"];
  if (document.activeElement === document.body) ui.send.focus(); // the example that was clicked is gone
}

function showError(error) {
  ui.error.textContent = error.message;
  if (error.status !== 401) return;
  if (ui.unlock.hidden) ui.error.textContent = ""; // the form says it
  ui.unlock.hidden = false;
  ui.key.focus();
}

async function showModels() {
  ui.error.textContent = "";
  try {
    const models = await listModels();
    ui.unlock.hidden = true;
    ui.model.replaceChildren(...models.map(({ id }) => element("option", {}, id)));
    ui.model.disabled = models.length < 2;
    ui.effort.value = models[0].default_effort ?? "low";
    ui.question.focus({ preventScroll: true });
  } catch (error) {
    showError(error);
  }
}

ui.ask.addEventListener("submit", (event) => {
  event.preventDefault();
  const question = ui.question.value.trim();
  if (question) ask(question);
});
ui.question.addEventListener("keydown", (event) => {
  const composing = event.isComposing || event.keyCode === 229; // Enter chooses a word of an input method
  if (event.key !== "Enter" || event.shiftKey || composing) return;
  event.preventDefault();
  ui.ask.requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing) running?.abort();
});
ui.send.addEventListener("click", (event) => {
  if (event.detail < 2) running?.abort(); // the second click of a double click on Ask must not stop
});
ui.examples.addEventListener("click", ({ target }) => target !== ui.examples && ask(target.textContent));
ui.unlock.addEventListener("submit", (event) => {
  event.preventDefault();
  setApiKey(ui.key.value.trim());
  showModels();
});
ui.new.addEventListener("click", () => {
  show(newConversation());
  ui.question.focus();
});
ui.clear.addEventListener("click", () => deleteConversations(() => true));

// The end of the conversation stays in view until the reader scrolls up.
let [following, last] = [true, 0];
const end = () => document.documentElement.scrollHeight - innerHeight;
addEventListener("scroll", () => {
  following = end() - scrollY < END_PX || (following && scrollY >= last);
  last = scrollY;
});
new ResizeObserver(() => following && scrollTo(0, end())).observe(ui.turns);

ui.about.textContent = ABOUT;
ui.votes.hidden = !HAS_VOTES;
show(loadConversations().find(({ id }) => `#${id}` === location.hash) ?? newConversation());
showModels();
