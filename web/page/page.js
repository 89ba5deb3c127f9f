// The page: its form, buttons and keys, errors and the API key.

import { Chat } from "./chat.js";
import { listModels, ServerError, setApiKey } from "./client.js";
import { loadConversations, STORAGE_NAME } from "./conversations.js";
import { element } from "./element.js";
import { follow } from "./follow.js";
import { History } from "./history.js";
import { Settings } from "./settings.js";
import { load, save } from "./store.js";

const OPEN_NAME = "thirteen.conversation"; // the id of this tab's conversation

const ui = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
const history = new History(ui.history, ui.conversations, open);
const settings = new Settings(ui.options, ui.settings);
const chat = new Chat(ui.turns, ui.announcement, { onEdit: edit, onAgain: askAgain, onChange: store });
let edited = null; // index of the turn whose question is being edited
let waitingForKey = false; // the last question failed for lack of an API key

/** Run an action; show its error, or ask for the API key if the server requires one. */
async function attempt(action) {
  ui.error.textContent = "";
  try {
    await action();
  } catch (error) {
    const keyNotEntered = error.status === 401 && !ui.key.value;
    ui.error.textContent = keyNotEntered ? "" : error.message;
    if (error.status === 401) showKeyForm();
    if (ui.error.textContent) showEnd();
    if (error.status !== 401 && !(error instanceof ServerError)) throw error; // a bug: report it on the console
  }
}

/** Scroll to the end, where an error stands above the question form, which would hide it otherwise. */
function showEnd() {
  follow(null);
  scrollTo(0, document.documentElement.scrollHeight);
}

function showKeyForm() {
  ui.unlock.hidden = false;
  ui.key.focus();
}

async function showModels() {
  const models = await listModels();
  ui.model.replaceChildren(...models.map(({ id }) => element("option", {}, id)));
  ui.model.disabled = models.length < 2;
  ui.effort.value = models[0].default_effort ?? "low";
}

function store(conversation) {
  save("sessionStorage", OPEN_NAME, conversation.id);
  history.put(conversation);
}

/** Show a stored conversation, or a new one. */
async function open(id) {
  await chat.stop(); // stores what came so far
  const conversation = id && loadConversations().find((found) => found.id === id);
  await chat.open(conversation);
  endEdit();
  ui.error.textContent = "";
  save("sessionStorage", OPEN_NAME, conversation?.id ?? null);
  history.select(conversation ?? {});
  showHistory(false);
  ui.question.focus();
}

/** On small screens the list of conversations is shown on demand. */
function showHistory(shown) {
  ui.past.setAttribute("aria-expanded", shown);
  ui.history.classList.toggle("shown", shown);
}

async function edit(index) {
  const question = chat.questions[index]; // stopping may put back the one that it replaced
  await chat.stop();
  [edited, ui.question.value] = [index, question];
  chat.mark(index);
  ui.editing.textContent = "Asked anew, without the turns after it.";
  ui.keep.hidden = false;
  ui.question.focus();
}

function endEdit() {
  edited = null;
  chat.mark(null);
  ui.editing.textContent = "";
  ui.keep.hidden = true;
}

function cancelEdit() {
  endEdit();
  ui.question.value = "";
  ui.question.focus();
}

async function ask() {
  const [question, from] = [ui.question.value.trim(), edited];
  endEdit();
  ui.question.value = "";
  if (await request(question, from, settings.fields(false))) await editAnew(question, from);
}

/** Ask a turn's question again, for another answer. */
async function askAgain(index) {
  await chat.stop();
  endEdit();
  const answered = attempt(() => request(chat.questions[index], index, settings.fields(true)));
  ui.stop.focus(); // the button that was pressed is gone
  await answered;
}

/** Edit a question that was not answered, unless another is being written. */
async function editAnew(question, from) {
  if (ui.question.value) return;
  await edit(from ?? chat.questions.length - 1);
  ui.question.value = question;
}

/** Ask a question; resolves to whether it was stopped and the turns that it was to replace are back. */
async function request(question, from, fields) {
  waitingForKey = false;
  swap(ui.send, ui.stop);
  try {
    return await chat.ask({ question, model: ui.model.value || undefined, effort: ui.effort.value, ...fields }, from);
  } catch (error) {
    waitingForKey = error.status === 401;
    await editAnew(question, from);
    throw error;
  } finally {
    swap(ui.stop, ui.send);
  }
}

/** Replace a button by another, which takes over the focus. */
function swap(shown, hidden) {
  const focused = document.activeElement === shown;
  hidden.hidden = false;
  if (focused) hidden.focus();
  shown.hidden = true;
}

/** Continue with a new API key. */
async function resume() {
  await showModels();
  if (waitingForKey && ui.question.value.trim()) await ask();
}

ui.ask.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!chat.running && ui.question.value.trim()) attempt(ask);
});

ui.examples.addEventListener("click", ({ target }) => {
  if (target === ui.examples) return;
  ui.question.value = target.textContent;
  ui.ask.requestSubmit();
  ui.stop.focus(); // the example is hidden now
});

ui.unlock.addEventListener("submit", async (event) => {
  event.preventDefault();
  setApiKey(ui.key.value.trim());
  ui.unlock.hidden = true;
  ui.question.focus();
  await attempt(resume);
  ui.key.value = "";
});

ui.question.addEventListener("keydown", (event) => {
  const composing = event.isComposing || event.keyCode === 229; // Enter chooses a word of an input method
  if (event.key === "Enter" && !event.shiftKey && !composing) {
    event.preventDefault();
    ui.ask.requestSubmit();
  } else if (event.key === "ArrowUp" && !ui.question.value && chat.questions.length) {
    event.preventDefault();
    edit(chat.questions.length - 1);
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || ui.settings.matches(":popover-open")) return;
  if (chat.running) chat.stop();
  else if (edited !== null) cancelEdit();
});

ui.keep.addEventListener("click", cancelEdit);

ui.stop.addEventListener("click", (event) => {
  if (event.detail < 2) chat.stop(); // the second click of a double click on Ask must not stop
});

ui.new.addEventListener("click", () => open());

ui.past.addEventListener("click", () => showHistory(ui.past.getAttribute("aria-expanded") !== "true"));

ui.clear.addEventListener("click", async () => {
  await open(); // ends a running answer, which would be stored once more
  history.clear();
});

// Another tab has changed conversations, perhaps the one that is shown here: this tab would store it as it was.
addEventListener("storage", ({ key }) => {
  if (key === STORAGE_NAME && !chat.running && edited === null) open(load("sessionStorage", OPEN_NAME));
});

const last = load("sessionStorage", OPEN_NAME);
if (last) open(last);
attempt(showModels);
