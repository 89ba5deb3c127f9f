// What the checks say of an answer, a port of runtime/answer.py.

import { checkSteps, isVerified } from "./calculator.js";
import { finalAnswer, formatNumber } from "./final_answer.js";
import { isGrounded } from "./grounding.js";

/** Check the answer to a question, which is given with all that was said before. */
export function checkAnswer(text, question) {
  const number = finalAnswer(text);
  const value = number === null ? null : formatNumber(number);
  const steps = checkSteps(text);
  const verified = isVerified(steps, value);
  return { steps, value, verified, grounded: verified && isGrounded(steps, question) };
}
