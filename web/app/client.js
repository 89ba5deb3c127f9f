// Client of the in-browser model, with the same functions and events as the client of the server's API.

import { Model } from "./model.js";

export { ModelError as ServerError } from "./errors.js";

let model = null;

/** The model in the browser needs no API key. */
export function setApiKey() {}

/** Load the model, as Model.load(); required before the first question. */
export async function loadModel(blob, description) {
  model = await Model.load(blob, description);
}

/** @returns {Promise<Array<{id: string}>>} the only model. */
export async function listModels() {
  return [{ id: model.name }];
}

/** Ask a question and stream the answer: the events of Model.events(). */
export function streamAnswer({ question, ...options }, signal) {
  return model.events(question, { ...options, signal });
}
