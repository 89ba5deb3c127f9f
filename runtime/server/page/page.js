// The page: asks a question, streams its answer, and handles stop, errors and the API key.

import { AnswerView } from "./answer.js";
import { listModels, ServerError, setApiKey, streamAnswer } from "./client.js";
import { element } from "./element.js";
import { QuestionHistory } from "./history.js";

const ui = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
const view = new AnswerView({ ...ui, box: ui.answer });
const history = new QuestionHistory(ui.history, ui.questions, editQuestion);
let running = null; // AbortController of the current answer
let waitingForKey = false; // the last question failed for lack of an API key

function editQuestion(question) {
  ui.question.value = question;
  ui.question.focus();
}

/** Run an action; show its error, or ask for the API key if the server requires one. */
async function attempt(action) {
  ui.error.textContent = "";
  try {
    await action();
  } catch (error) {
    const keyNotEntered = error.status === 401 && !ui.key.value;
    ui.error.textContent = keyNotEntered ? "" : error.message;
    if (error.status === 401) showKeyForm();
    else if (!(error instanceof ServerError)) throw error; // a bug: report it on the console
  }
}

function showKeyForm() {
  ui.unlock.hidden = false;
  ui.key.focus();
}

async function showModels() {
  const names = await listModels();
  ui.model.replaceChildren(...names.map((name) => element("option", {}, name)));
  ui.model.disabled = names.length < 2;
}

async function ask() {
  const question = ui.question.value.trim();
  const votes = Number(ui.votes.value);
  const model = ui.model.value || undefined;
  start(question, votes);
  try {
    for await (const event of streamAnswer({ question, model, votes }, running.signal)) show(question, event);
  } catch (error) {
    const stopped = running.signal.aborted;
    view.stop(stopped ? "Stopped" : "No answer");
    waitingForKey = error.status === 401;
    if (!stopped) throw error;
  } finally {
    end();
  }
}

/** Continue with a new API key. */
async function resume() {
  await showModels();
  if (waitingForKey) await ask();
}

function start(question, votes) {
  waitingForKey = false;
  running = new AbortController();
  history.put({ question, value: null, verified: false });
  view.start(question, votes);
  swap(ui.send, ui.stop);
}

function show(question, { event, data }) {
  if (event === "text") view.addText(data);
  if (event === "step") view.addStep(data);
  if (event === "answer") {
    view.finish(data);
    history.put({ question, value: data.value, verified: data.verified });
  }
}

function end() {
  running = null;
  swap(ui.stop, ui.send);
}

/** Replace a button by another, which takes over the focus. */
function swap(shown, hidden) {
  const focused = document.activeElement === shown;
  hidden.hidden = false;
  if (focused) hidden.focus();
  shown.hidden = true;
}

ui.ask.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running && ui.question.value.trim()) attempt(ask);
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
  const modifier = event.ctrlKey || event.metaKey;
  if (event.key === "Enter" && modifier && !event.isComposing) ui.ask.requestSubmit();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});

ui.stop.addEventListener("click", (event) => {
  if (event.detail < 2) running?.abort(); // the second click of a double click on Ask must not stop
});

ui.clear.addEventListener("click", () => {
  history.clear();
  ui.question.focus();
});

attempt(showModels);
