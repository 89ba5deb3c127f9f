// The page: a question is asked, its answer heard, stopped or refused.

import { AnswerView } from "./answer.js";
import { answer, models, ServerError, unlock } from "./client.js";
import { element } from "./element.js";
import { Questions } from "./questions.js";

const part = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
const view = new AnswerView({ ...part, box: part.answer });
const questions = new Questions(part.history, part.questions, write);
let running = null; // the AbortController of the answer that is coming
let waiting = false; // a question was refused for want of a key

function write(question) {
  part.question.value = question;
  part.question.focus();
}

/** Do something with the server; say in a line what goes wrong, and ask for a key if one is missing. */
async function attempt(action) {
  part.error.textContent = "";
  try {
    await action();
  } catch (failure) {
    const first = failure.status === 401 && !part.key.value;
    part.error.textContent = first ? "" : failure.message;
    if (failure.status === 401) lock();
    else if (!(failure instanceof ServerError)) throw failure; // for the browser's console
  }
}

function lock() {
  part.unlock.hidden = false;
  part.key.focus();
}

async function offerModels() {
  const names = await models();
  part.model.replaceChildren(...names.map((name) => element("option", {}, name)));
  part.model.disabled = names.length < 2;
}

async function ask() {
  const question = part.question.value.trim();
  const votes = Number(part.votes.value);
  const model = part.model.value || undefined;
  begin(question, votes);
  try {
    for await (const heard of answer({ question, model, votes }, running.signal)) take(question, heard);
  } catch (failure) {
    const stopped = running.signal.aborted;
    view.stop(stopped ? "Stopped" : "No answer");
    waiting = failure.status === 401;
    if (!stopped) throw failure;
  } finally {
    end();
  }
}

/** Go on with a key. */
async function resume() {
  await offerModels();
  if (waiting) await ask();
}

function begin(question, votes) {
  waiting = false;
  running = new AbortController();
  questions.put({ question, value: null, verified: false });
  view.begin(question, votes);
  swap(part.send, part.stop);
}

function take(question, { event, data }) {
  if (event === "text") view.add(data);
  if (event === "step") view.check(data);
  if (event === "answer") {
    view.finish(data);
    questions.put({ question, value: data.value, verified: data.verified });
  }
}

function end() {
  running = null;
  swap(part.stop, part.send);
}

/** Put one button in another's place, with the focus if it was there. */
function swap(shown, other) {
  const focused = document.activeElement === shown;
  other.hidden = false;
  if (focused) other.focus();
  shown.hidden = true;
}

part.ask.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running && part.question.value.trim()) attempt(ask);
});

part.unlock.addEventListener("submit", async (event) => {
  event.preventDefault();
  unlock(part.key.value.trim());
  part.unlock.hidden = true;
  part.question.focus();
  await attempt(resume);
  part.key.value = "";
});

part.question.addEventListener("keydown", (event) => {
  const meant = event.ctrlKey || event.metaKey;
  if (event.key === "Enter" && meant && !event.isComposing) part.ask.requestSubmit();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});

part.stop.addEventListener("click", (event) => {
  if (event.detail < 2) running?.abort(); // a double click was meant for the button that stood here before
});

part.clear.addEventListener("click", () => {
  questions.clear();
  part.question.focus();
});

attempt(offerModels);
