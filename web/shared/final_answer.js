// Parser for final answers, a port of runtime/arithmetic/final_answer.py. The tests run both on the same texts.

import { Fraction } from "./fraction.js";
import { answer, CUES, expandVulgar, limits, NORMALIZATIONS, prose } from "./tables.js";

const MAGNITUDE_LIMIT = 10n ** BigInt(limits.answer_magnitude_digits); // beyond it, a model repeats itself
const [NUMBER, FIRST_NUMBER, ANY_NUMBER] = ["g", "y", ""].map((flags) => answer("number", flags));
const UNIT = answer("unit", "y", "$");
const SIGNED_FRACTION = answer("signed_fraction", "g");
const LIST_NUMBER = answer("list_number", "g");
const [SPACED, REASON] = [answer("spaced", ""), answer("reason", "")];
const SYMBOLIC = answer("symbolic", "");
const BOLD = prose("bold", "g");
const SENTENCE_END = prose("sentence_end", "");

/**
 * Find the final answer in a model's text.
 *
 * @param {string} text
 * @returns {?Fraction} the last boxed number, "#### …" or "answer is …"; else the result of the last sentence
 *   with a number. Null if the text has no number, or its box has symbols.
 */
export function finalAnswer(text) {
  const normalized = normalize(text);
  for (const value of afterCues(normalized)) return value;
  for (const value of inLastSentence(normalized)) return value;
  for (const value of afterCues(normalize(text.replace(LIST_NUMBER, "$<item>")))) return value;
  return null;
}

/** Write a number in a canonical form: "42", "-3.5", or "1/3" if the decimal does not end. */
export function formatNumber(value) {
  let places = 0;
  while (places <= limits.answer_places && 10n ** BigInt(places) % value.denominator) places++;
  if (places > limits.answer_places) return `${value.numerator}/${value.denominator}`;
  const scaled = (value.abs().numerator * 10n ** BigInt(places)) / value.denominator;
  const digits = scaled.toString().padStart(places + 1, "0");
  const [whole, decimals] = [digits.slice(0, digits.length - places), digits.slice(digits.length - places)];
  return (value.numerator < 0n ? "-" : "") + whole + (decimals && `.${decimals}`);
}

function normalize(text) {
  let normalized = expandVulgar(text.replace(SIGNED_FRACTION, (sign) => expandVulgar(sign).trimStart()));
  for (const [pattern, replacement] of NORMALIZATIONS) normalized = normalized.replace(pattern, replacement);
  return normalized;
}

/** Join the groups of digits of a number that is the whole text: "12 000" becomes "12000". */
const joinGroups = (text) => text.replace(SPACED, (number) => number.replaceAll(" ", ""));

/** Parse one number as people write it; null if the text is not one number. */
function parseNumber(text) {
  const normalized = joinGroups(normalize(text).replace(/^[ \t\n({*`"']+/, ""));
  FIRST_NUMBER.lastIndex = 0;
  const match = FIRST_NUMBER.exec(normalized);
  if (!match) return null;
  UNIT.lastIndex = FIRST_NUMBER.lastIndex;
  return UNIT.test(normalized) ? valueOf(match) : null;
}

function valueOf(match) {
  const { whole = "0", number, denominator = "1", sign, inner_sign: innerSign, unread } = match.groups;
  if (unread || match[0].length > limits.answer_characters) return null;
  const { raised = "1", exponent = "0" } = match.groups;
  const [power, scale] = [Number(raised), Number(exponent)];
  const [digits, divisorDigits] = [number, denominator].map((text) => text.replaceAll(",", ""));
  if (Math.abs(scale) > limits.answer_exponent) return null;
  if (digits.length * Math.abs(power) > limits.answer_characters) return null; // the power would be as long
  const [base, divisor] = [Fraction.parse(digits), Fraction.parse(divisorDigits)];
  if (divisor.isZero() || (power < 0 && base.isZero())) return null;
  const fraction = base.power(power).dividedBy(divisor);
  const value = new Fraction(BigInt(whole)).plus(fraction).times(new Fraction(10n).power(scale));
  if (value.reaches(MAGNITUDE_LIMIT)) return null;
  return sign || innerSign ? value.negated() : value;
}

function numbers(text, lastFirst = false) {
  const matches = [...text.matchAll(NUMBER)];
  return (lastFirst ? matches.reverse() : matches).map(valueOf).filter((value) => value !== null);
}

const afterEquals = (text) => text.slice(text.lastIndexOf("=") + 1);

/** Yield what the sentence at the first number equals ("5 + 3 = 8"), but for reasons, then all numbers. */
function* statedNumbers(stated) {
  const text = joinGroups(stated);
  const first = text.search(ANY_NUMBER);
  if (first < 0) return;
  const sentence = text.slice(first).split(SENTENCE_END, 1)[0];
  yield* numbers(afterEquals(sentence.split(REASON, 1)[0])); // "5 because x = 2"
  yield* numbers(text);
}

/** Yield what the cues state, from the most explicit; null for a box with symbols. */
function* afterCues(text) {
  for (const cue of CUES) {
    for (const [, stated] of [...text.matchAll(cue)].reverse()) {
      if (cue === CUES[0] && SYMBOLIC.test(afterEquals(stated))) yield null;
      yield* statedNumbers(stated);
    }
  }
}

function* inLastSentence(text) {
  for (const sentence of text.split(SENTENCE_END).reverse()) {
    const bold = [...sentence.matchAll(BOLD)].reverse().map(([, content]) => parseNumber(afterEquals(content)));
    yield* bold.filter((value) => value !== null);
    if (sentence.includes("=")) yield* numbers(afterEquals(sentence));
    yield* numbers(sentence, true);
  }
}
