// Errors with a message for the user.

/** The model cannot be fetched, or cannot run here. */
export class LoadError extends Error {}

/** A failure of the model; the message is one line. */
export class ModelError extends Error {}

/** What an error of a request says; that of Node.js's fetch() is in its cause. */
export const reasonOf = (error) => error.cause?.message || error.message;
