// Grounding of equations, a port of runtime/arithmetic/grounding.py.

import { parseMixedNumber } from "./expression.js";
import { formatNumber } from "./final_answer.js";
import { Fraction, HUNDRED, ZERO } from "./fraction.js";
import { matchLexemes } from "./lexer.js";
import { values } from "./tables.js";
import { AmbiguityError } from "./units.js";

/** Whether every number of every equation is in the question, or the result of an equation before. */
export function isGrounded(steps, question) {
  const known = new Set(numbers(question));
  for (const { expression, claimed, computed } of steps) {
    for (const number of numbers(expression)) if (!known.has(number)) return false;
    known.add(claimed).add(computed);
  }
  return true;
}

/** Whether a text has a number, in digits or in words. */
export const hasNumber = (text) => !numbers(text).next().done;

/** Yield the numbers of a text, as formatNumber() writes them. */
function* numbers(text) {
  let last = ZERO;
  for (const { kind, text: lexeme } of matchLexemes(text)) {
    if (kind === "percent") yield* [last.dividedBy(HUNDRED), HUNDRED].map(formatNumber);
    const parts = lexeme.toLowerCase().split("-");
    if (kind === "number" || kind === "compound") {
      try {
        yield formatNumber((last = parseMixedNumber(parts[0])));
      } catch (failure) {
        if (!(failure instanceof AmbiguityError || failure instanceof RangeError)) throw failure; // RangeError: by zero
      }
    }
    if (kind !== "word") continue;
    const found = parts.flatMap((part) => values.get(part) ?? []).map(Fraction.parse);
    if (found.length > 1) found.push(found.reduce((sum, value) => sum.plus(value))); // "twenty-five"
    yield* found.map(formatNumber);
  }
}
