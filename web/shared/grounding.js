// Grounding of equations, a port of runtime/arithmetic/grounding.py.

import { formatNumber } from "./final_answer.js";
import { Fraction, HUNDRED, ZERO } from "./fraction.js";
import { lex, numberValue } from "./lexer.js";
import { expandVulgar, prose, values, words } from "./tables.js";

const MIXED = prose("mixed", "g");

/** Whether every number of every equation is in the question, or the result of an equation before. */
export function isGrounded(steps, question) {
  const known = new Set([...numbers(question), ...fractions(question)]);
  for (const { expression, claimed, computed } of steps) {
    for (const number of numbers(expression)) if (!known.has(number)) return false;
    known.add(claimed).add(computed);
  }
  return true;
}

/** Whether a text has a number, in digits or in words. */
export const hasNumber = (text) => [...numbers(text), ...fractions(text)].length > 0;

/** Whether a question in English is certain to need nothing that was said before; see grounding.py. */
export function standsAlone(question) {
  const sentences = question.trim().toLowerCase().split(/(?<=[.!?])\s/);
  const list = (text) => text.match(/[a-z']+/g) ?? [];
  const has = (name, found) => found.some((word) => words[name].has(word));
  const [first, asked] = [list(sentences[0]), list(sentences.at(-1))];
  const opens = sentences.length > 1 && !sentences[0].endsWith("?");
  return (
    (opens || (first[0] === "what" && first[1] === "is")) &&
    hasNumber(sentences[0]) &&
    [...numbers(question)].length > 1 &&
    has("asking", asked) &&
    !words.leading.has(first[0]) &&
    !has("backward", first) &&
    !has("earlier", list(question.toLowerCase()))
  );
}

function* fractions(text) {
  for (const [, whole = "0", numerator, denominator] of expandVulgar(text).matchAll(MIXED)) {
    if (BigInt(denominator)) yield formatNumber(Fraction.parse(whole).plus(Fraction.parse(`${numerator}/${denominator}`)));
  }
}

/** Yield the numbers of a text, as formatNumber() writes them. */
function* numbers(text) {
  let last = ZERO;
  for (const lexeme of lex(text)) {
    const [kind, word] = [lexeme.kind, lexeme.text.toLowerCase()];
    if (kind === "percent" || word === "percent") yield* [last.dividedBy(HUNDRED), HUNDRED].map(formatNumber);
    if (kind === "number") yield formatNumber((last = numberValue(lexeme)));
    if (kind !== "word") continue;
    const found = word.split("-").flatMap((part) => values.get(part) ?? []).map(Fraction.parse);
    if (found.length > 1) found.push(found.reduce((sum, value) => sum.plus(value))); // "twenty-five"
    yield* found.map(formatNumber);
  }
}
