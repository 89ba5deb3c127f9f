// Conversations in this browser's storage, the newest first: the last ones, within a size.

const STORAGE_NAME = "thirteen.conversations-2"; // another number for another format
const CONVERSATIONS_MAX = 20;
const CHARS_MAX = 1_000_000; // browsers store about five million

/** @returns {{id: string, turns: Array<{question: string, text: string, answer: ?object}>}} */
export const newConversation = () => ({ id: Date.now().toString(36), turns: [] });

/** Call a function of the browser's storage; undefined where the browser stores nothing (private windows). */
export function tryStorage(use) {
  try {
    return use();
  } catch {
    return undefined;
  }
}

/** The stored conversations, the newest first. */
export const loadConversations = () => tryStorage(() => JSON.parse(localStorage.getItem(STORAGE_NAME))) ?? [];

/** Store a conversation as the newest; one without turns is not kept. */
export function storeConversation(conversation) {
  saveConversations([conversation, ...loadConversations().filter(({ id }) => id !== conversation.id)]);
}

/** Save conversations without the last ones that are too many, and without the first turns that are too long. */
export function saveConversations(conversations) {
  let room = CHARS_MAX;
  const kept = conversations.slice(0, CONVERSATIONS_MAX).map(({ id, turns }) => {
    const last = turns.findLastIndex((turn) => (room -= JSON.stringify(turn).length) < 0);
    return { id, turns: turns.slice(last + 1) };
  });
  tryStorage(() => localStorage.setItem(STORAGE_NAME, JSON.stringify(kept.filter(({ turns }) => turns.length))));
}
