// Conversations in this browser's storage, the newest first: the last ones, within a size.

import { load, save } from "./store.js";

export const STORAGE_NAME = "thirteen.conversations";
const CONVERSATIONS_MAX = 20;
const CHARS_MAX = 1_000_000; // browsers store about five million

/** @returns {{id: string, turns: Array<{question: string, text: string, answer: ?object}>}} */
export function newConversation() {
  return { id: `${Date.now()}-${Math.random()}`, turns: [] }; // randomUUID() needs a secure context
}

/** The stored conversations, the newest first; what another version of this page has stored is left out. */
export function loadConversations() {
  const stored = load("localStorage", STORAGE_NAME);
  return Array.isArray(stored) ? stored.filter(isConversation) : [];
}

/** Store a conversation as the newest. */
export function storeConversation(conversation) {
  const others = loadConversations().filter(({ id }) => id !== conversation.id);
  saveConversations([conversation, ...others].slice(0, CONVERSATIONS_MAX));
}

/** Remove all conversations. */
export function clearConversations() {
  save("localStorage", STORAGE_NAME, []);
}

/** Save conversations without the last ones, or without the first turns, that are too many for the storage. */
function saveConversations(conversations) {
  let room = CHARS_MAX;
  const kept = conversations.map(({ id, turns }) => {
    const last = turns.findLastIndex((turn) => (room -= JSON.stringify(turn).length) < 0);
    return { id, turns: turns.slice(last + 1) };
  });
  save("localStorage", STORAGE_NAME, kept.filter(({ turns }) => turns.length));
}

const isText = (value) => typeof value === "string";
const isConversation = (found) => isText(found?.id) && Array.isArray(found.turns) && found.turns[0] && found.turns.every(isTurn);
const isTurn = (turn) => isText(turn?.question) && isText(turn.text) && (turn.answer === null || isAnswer(turn.answer));

function isAnswer(answer) {
  const { text, value, steps, usage, timings, thinking = "" } = answer ?? {};
  const checked = Array.isArray(steps) && steps.every((step) => isText(step?.expression) && isText(step.computed));
  return isText(text) && isText(thinking) && (value === null || isText(value)) && checked && Boolean(usage && timings);
}
