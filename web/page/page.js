// The page: the conversation that is shown, the form, buttons and keys.

import { resultSentence } from "./answer.js";
import { ABOUT, HAS_VOTES, listModels, setApiKey, streamAnswer } from "./client.js";
import { loadConversations, newConversation, saveConversations, storeConversation } from "./conversations.js";
import { element } from "./element.js";
import { TurnView } from "./turn.js";

const AGAIN_TEMPERATURE = 0.7; // at 0 an answer would be the same again
const TURNS_MAX = 50; // sent with a question
const END_PX = 60; // whoever is so close to the end follows it
const SPOKEN_CHARS = 1000;

const ui = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
let conversation = newConversation();
let views = []; // of its turns
let edited = null; // index of the turn whose question is in the form
let running = null; // AbortController of the answer that is being generated

function addView(turn) {
  const index = views.length;
  const view = new TurnView(turn, {
    onEdit: () => edit(index),
    onAgain: () => ask(turn.question, index, AGAIN_TEMPERATURE),
    onCopied: announce,
  });
  views.push(view);
  ui.turns.append(view.element);
  return view;
}

/** Show a conversation; an answer that is being generated for another one ends. */
function show(shown) {
  running?.abort();
  conversation = shown;
  views = [];
  ui.turns.replaceChildren();
  shown.turns.forEach(addView);
  endEdit();
  listConversations();
}

function listConversations() {
  const stored = loadConversations();
  const items = stored.map((found) => {
    const current = found.id === conversation.id ? { "aria-current": "true" } : {};
    const title = found.turns[0].question;
    const open = element("button", { type: "button", title, ...current }, title);
    const remove = element("button", { type: "button", class: "secondary", "aria-label": `Delete: ${title}` }, "×");
    open.addEventListener("click", () => {
      if (found.id !== conversation.id) show(found);
      ui.history.hidePopover();
    });
    remove.addEventListener("click", () => deleteConversations(({ id }) => id === found.id));
    return element("li", {}, open, remove);
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

/**
 * Ask a question and show its answer. Without any text of it, all is as before, with the question in the form.
 *
 * @param {string} question
 * @param {number} from index of the turn that this one replaces, with all after it; the number of turns replaces none.
 * @param {number} [temperature]
 */
async function ask(question, from, temperature) {
  if (running) return;
  const before = conversation;
  const earlier = before.turns.slice(0, from);
  const turn = { question, text: "", answer: null };
  const current = { id: before.id, turns: [...earlier, turn] };
  conversation = current;
  endEdit();
  views.splice(from).forEach((view) => view.element.remove());
  following = true;
  const view = addView(turn);
  setRunning(new AbortController());
  const { signal } = running;
  const onEvent = (event, data) => view.receive(event, data);
  try {
    turn.answer = await streamAnswer(request(question, earlier, temperature), signal, onEvent);
    turn.text = turn.answer.text;
    view.finish(turn.answer);
    announce(resultSentence(turn.answer) + turn.text.slice(0, SPOKEN_CHARS));
  } catch (error) {
    turn.text = view.text;
    announce(signal.aborted ? "Stopped" : "No answer");
    view.stop(ui.announcement.textContent);
    if (!signal.aborted) showError(error);
  }
  setRunning(null);
  const kept = turn.text || turn.answer;
  if (kept) storeConversation(current);
  if (!kept && conversation === current) goBack(before, question, from);
  else listConversations();
}

/** Show a conversation as it was before a question that has no answer, with the question in the form. */
function goBack(before, question, from) {
  const typed = ui.question.value;
  show(before);
  if (from < before.turns.length) edit(from);
  ui.question.value = typed || question;
}

function request(question, earlier, temperature) {
  const turns = earlier.filter(({ answer }) => answer).slice(-TURNS_MAX);
  return {
    question,
    turns: turns.map((turn) => ({ question: turn.question, answer: turn.answer.text })),
    effort: ui.effort.value,
    ...(ui.model.value && { model: ui.model.value }),
    ...(temperature && { temperature }),
  };
}

function setRunning(controller) {
  running = controller;
  document.body.classList.toggle("running", Boolean(running));
  const [shown, hidden] = running ? [ui.stop, ui.send] : [ui.send, ui.stop];
  const focused = document.activeElement === hidden || document.activeElement === document.body;
  [shown.hidden, hidden.hidden] = [false, true];
  if (focused) shown.focus();
  if (!running) return;
  ui.error.textContent = "";
  announce("Working it out");
}

function announce(message) {
  ui.announcement.textContent = message;
}

function showError(error) {
  ui.error.textContent = error.message;
  if (error.status !== 401) return;
  if (ui.unlock.hidden) ui.error.textContent = ""; // the form says it
  ui.unlock.hidden = false;
  ui.key.focus();
}

/** Put a turn's question into the form, to be asked instead of it and the turns after it. */
function edit(index) {
  edited = index;
  ui.question.value = conversation.turns[index].question;
  views.forEach((view, number) => view.element.classList.toggle("edited", number >= index));
  ui.editing.hidden = false;
  ui.question.focus();
}

function endEdit() {
  edited = null;
  ui.question.value = "";
  views.forEach((view) => view.element.classList.remove("edited"));
  ui.editing.hidden = true;
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
  if (question) ask(question, edited ?? conversation.turns.length);
});
ui.question.addEventListener("keydown", (event) => {
  const composing = event.isComposing || event.keyCode === 229; // Enter chooses a word of an input method
  if (event.key !== "Enter" || event.shiftKey || composing) return;
  event.preventDefault();
  ui.ask.requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (running) running.abort();
  else if (edited !== null) endEdit();
});
ui.stop.addEventListener("click", (event) => {
  if (event.detail < 2) running?.abort(); // the second click of a double click on Ask must not stop
});
ui.examples.addEventListener("click", ({ target }) => target !== ui.examples && ask(target.textContent, 0));
ui.unlock.addEventListener("submit", (event) => {
  event.preventDefault();
  setApiKey(ui.key.value.trim());
  showModels();
});
ui.keep.addEventListener("click", endEdit);
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
