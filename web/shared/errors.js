// Errors with a message for the user.

/** The model cannot be fetched, or cannot run here. */
export class LoadError extends Error {}

/** A failure of the model; the message is one line. */
export class ModelError extends Error {}
