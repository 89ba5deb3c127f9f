// What the checks say of an answer, a port of runtime/answer.py.

import { readEquations } from "./equations.js";
import { finalAnswer, formatNumber } from "./final_answer.js";
import { isGrounded } from "./grounding.js";

/** Check the answer to a question, which is given with all that was said before; `complete`: it was not cut off. */
export function checkAnswer(text, question = "", complete = true) {
  const number = finalAnswer(text, question);
  const value = number === null ? null : formatNumber(number);
  const { steps, unread } = readEquations(complete ? text : `${text}\u2026`, question);
  const results = steps.flatMap(({ claimed, computed }) => [claimed, computed]);
  const verified = !unread && steps.every(({ ok }) => ok) && results.includes(value);
  return { steps, value: complete ? value : null, verified, grounded: verified && isGrounded(steps, question) };
}
