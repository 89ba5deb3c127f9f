/** An equation in a text. */
export interface Step {
  /** The left side as written. */
  expression: string;
  /** Value of the right side, such as "42", "-3.5" or "1/3". */
  claimed: string;
  /** Value of the left side; in percent if the right side is. */
  computed: string;
  /** Whether the values are equal, or the claimed one is the computed one rounded. */
  ok: boolean;
}

/** What a text states. */
export interface Claim {
  /** Its equations, in order. */
  steps: Step[];
  /** Its final answer; null if it has none. */
  value: string | null;
  /** Whether all steps hold and one of them results in the final answer. */
  verified: boolean;
}

export interface Answer extends Claim {
  text: string;
  stop_reason: "end" | "length";
  model: string;
  /** How many answers gave which value; null without votes. */
  tally: { asked: number; ended: number; votes: Record<string, number> } | null;
  /** How many of the earlier turns had no room in the context. */
  dropped_turns: number;
  usage: { prompt_tokens: number; completion_tokens: number; cached_tokens: number; sampled_tokens: number };
  timings: { decode_tokens_per_s: number; first_token_s: number };
}

/** An earlier question of a conversation, with its answer. */
export interface Turn {
  question: string;
  answer: string;
}

export interface AskOptions {
  turns?: Turn[];
  /** Aborts the generation, which throws the signal's reason: an AbortError, if no other is given. */
  signal?: AbortSignal;
}

export interface AnswerOptions extends AskOptions {
  /** Answers of a majority vote; 1 by default. */
  votes?: number;
}

export type ModelEvent =
  | { event: "text"; data: { text: string } }
  | { event: "step"; data: Step }
  | { event: "answer"; data: Answer };

/** A model in memory. It answers one question at a time. */
export interface Model {
  readonly name: string;
  /** The pieces of an answer as they come; the answer is the generator's result. Leaving the loop stops it. */
  ask(question: string, options?: AskOptions): AsyncGenerator<string, Answer, void>;
  answer(question: string, options?: AnswerOptions): Promise<Answer>;
  /** Pieces of text and equations as they come, and the answer as the last. */
  events(question: string, options?: AnswerOptions): AsyncGenerator<ModelEvent, void, void>;
  /** Free the memory. In Node.js the process can end only after it. */
  close(): Promise<void>;
}

export interface LoadOptions {
  /** Aborts the download, which throws the signal's reason: an AbortError, if no other is given. */
  signal?: AbortSignal;
  /** Called with the bytes available so far and in total. */
  onProgress?: (done: number, total: number) => void;
}

/** Load the model of a folder that `thirteen web` wrote. */
export function load(url: string | URL, options?: LoadOptions): Promise<Model>;

/** Check a text: its equations, its final answer, and whether they verify it. */
export function checkClaim(text: string): Claim;

/** Check every equation of a text whose two sides can be parsed, in order. */
export function checkSteps(text: string): Step[];

/** Whether all steps hold and one results in the value. */
export function isVerified(steps: Step[], value: string | null): boolean;

/** There is no model, no connection, a damaged part, or too little memory. The message is a sentence. */
export class LoadError extends Error {}

/** A failure of the model. The message is a sentence. */
export class ModelError extends Error {}
