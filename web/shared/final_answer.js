// Parser for final answers, a port of runtime/arithmetic/final_answer.py. The tests run both on the same texts.

import { Fraction } from "./fraction.js";
import { answer, CUES, expandVulgar, limits, NORMALIZATIONS, prose, trimEnd } from "./tables.js";

const MAGNITUDE_LIMIT = 10n ** BigInt(limits.answer_magnitude_digits); // beyond it, a model repeats itself
const [NUMBER, FIRST_NUMBER, ANY_NUMBER] = ["g", "y", ""].map((flags) => answer("number", flags));
const UNIT = answer("unit", "y", "$");
const SIGNED_FRACTION = answer("signed_fraction", "g");
const LIST_NUMBER = answer("list_number", "g");
const [SPACED, REASON] = [answer("spaced", ""), answer("reason", "")];
const SYMBOLIC = answer("symbolic", "");
const BOLD = prose("bold", "g");
const SENTENCE_END = prose("sentence_end", "");
const [ASKS, ASKS_NO_NUMBER, DIGIT, ORDINAL, LINK, BEING, OPERAND, LISTED, UNKNOWN, EXAMPLE, GOES_ON] = [
  "asks", "asks_no_number", "digit", "ordinal", "link", "being", "operand", "listed", "unknown", "example", "goes_on",
].map((name) => answer(name, ""));
const [SOLUTION, ASIDE] = ["solution", "aside"].map((name) => answer(name, "g"));
const ECHO_WORDS = 3; // of which a sentence that only repeats the question has more
const NEAR = 100; // characters beside a number that tell what it is
const ALPHANUMERIC = /[\p{L}\p{N}]/u;

/**
 * Find the final answer that a model's text states.
 *
 * @param {string} text
 * @param {string} question what was asked; a sentence gives a quantity only if it asked for one.
 * @returns {?Fraction} the last boxed number, "#### …" or "answer is …"; else what the last sentence with a number
 *   gives. Null if the text states none, or several, or its box has symbols.
 */
export function finalAnswer(text, question = "") {
  const normalized = normalize(text);
  const [stated] = afterCues(normalized);
  if (stated) return stated;
  if (stated === undefined && (!question || asksNumber(question))) {
    const [value] = inLastSentence(normalized, normalize(question));
    if (value) return value;
  }
  const [item] = afterCues(normalize(text.replace(LIST_NUMBER, "$<item>")));
  return item ?? null;
}

const asksNumber = (question) => ASKS.test(question) || (DIGIT.test(question) && !ASKS_NO_NUMBER.test(question));

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

/** Join the groups of digits of a number with which a text begins: "12 000 km" becomes "12000 km". */
const joinGroups = (text) => text.replace(SPACED, (number) => number.replaceAll(" ", ""));

/** Parse one number as people write it; null if the text is not one number. */
function parseNumber(text) {
  const normalized = joinGroups(normalize(text).replace(/^[ \t\n({*`"']+/, ""));
  FIRST_NUMBER.lastIndex = 0;
  const match = FIRST_NUMBER.exec(normalized);
  if (!match || GOES_ON.test(following(normalized, match))) return null;
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

const numbers = (text) => [...text.matchAll(NUMBER)].map(valueOf).filter((value) => value !== null);

const afterEquals = (text) => text.slice(text.lastIndexOf("=") + 1);

/** Yield the numbers; null for several ("4 or -4"), and for one that goes on: "2 million". */
function* wholeNumbers(stated) {
  const text = joinGroups(stated);
  if (isList(text)) yield null;
  for (const match of text.matchAll(NUMBER)) {
    const value = valueOf(match);
    if (value !== null) yield GOES_ON.test(following(text, match)) ? null : value;
  }
}

/** Yield what the first sentence equals ("5 + 3 = 8"), but for reasons, then all its numbers. */
function* statedNumbers(stated) {
  const [sentence] = joinGroups(stated).split(SENTENCE_END, 1);
  if (haveSolutions([sentence])) yield null;
  yield* wholeNumbers(afterEquals(sentence.split(REASON, 1)[0])); // "5 because x = 2"
  yield* wholeNumbers(sentence);
}

/** Yield what the cues state, from the most explicit; null for a box with symbols, and for several. */
function* afterCues(text) {
  for (const cue of CUES) {
    for (const [, stated] of [...text.matchAll(cue)].reverse()) {
      if ((cue === CUES[0] && SYMBOLIC.test(afterEquals(stated))) || isList(stated)) yield null;
      yield* statedNumbers(stated);
    }
  }
}

/** Yield what the last sentence with a number states; nothing if that is nothing, or several solutions. */
function* inLastSentence(text, question) {
  const sentences = text.split(SENTENCE_END).filter((sentence) => ALPHANUMERIC.test(sentence));
  const withNumber = sentences.filter((sentence) => ANY_NUMBER.test(sentence));
  if (!withNumber.length || haveSolutions(withNumber.slice(-2))) return;
  const last = withNumber.at(-1);
  const bold = [...last.matchAll(BOLD)].reverse().map(([, content]) => parseNumber(afterEquals(content)));
  yield* bold.filter((value) => value !== null);
  if (last.includes("=")) {
    const result = afterEquals(last);
    const found = [...result.matchAll(NUMBER)];
    if (found.length > 1 && LINK.test(preceding(result, found.at(-1)))) yield valueOf(found.at(-1));
    const left = afterEquals(last.slice(0, last.lastIndexOf("=")));
    if (UNKNOWN.test(`${left}=${result}`) || SYMBOLIC.test(result) || EXAMPLE.test(result)) yield null;
    yield* wholeNumbers(result);
  }
  const stripped = last.trim();
  const echo = stripped.split(" ").length > ECHO_WORDS && question.includes(stripped);
  if (echo || trimEnd(last).endsWith(":")) return;
  const given = numbers(question.replaceAll("/", " "));
  const near = sentences.slice(-2).includes(last);
  const statement = last.split(REASON, 1)[0].replace(ASIDE, "");
  yield quantity(statement, given, near) ?? quantity(last, given, near);
}

/** Whether sentences give an unknown several values: "x = 2 or x = 3". */
function haveSolutions(sentences) {
  const solutions = new Map(); // from "x 2" to "x"
  for (const sentence of sentences) {
    for (const found of sentence.matchAll(SOLUTION)) {
      const [value] = numbers(following(sentence, found));
      solutions.set(`${found[1]} ${value && formatNumber(value)}`, found[1]);
    }
  }
  return new Set(solutions.values()).size < solutions.size;
}

/** Whether nothing but a comma, "and" or "or" stands between two numbers. */
const areListed = (text, one, other) => LISTED.test(text.slice(one.index + one[0].length, other.index));

/** Whether a text begins with several numbers: "4 or -4". */
function isList(text) {
  const [first, second] = text.matchAll(NUMBER);
  return Boolean(second) && areListed(text, first, second);
}

const preceding = (text, match) => text.slice(Math.max(match.index - NEAR, 0), match.index);

function following(text, match) {
  const end = match.index + match[0].length;
  return text.slice(end, end + NEAR);
}

/**
 * The quantity that a sentence gives: its only new number, its only number, or the last after "is". Where the sentence
 * is not `near` the end, only a new number after "is".
 */
function quantity(sentence, given, near) {
  const isGiven = (value) => given.some((one) => one.equals(value));
  const matches = [...sentence.matchAll(NUMBER)];
  const isListed = (at) => at > 0 && at < matches.length && areListed(sentence, matches[at - 1], matches[at]);
  const found = matches.filter((match, at) => {
    const [value, after] = [valueOf(match), following(sentence, match)];
    if (value === null || match[0].includes(" / ") || isListed(at) || isListed(at + 1)) return false;
    if (ORDINAL.test(preceding(sentence, match)) || OPERAND.test(after)) return false;
    return !isGiven(value) || !/^\s*%/.test(after) || BEING.test(preceding(sentence, match));
  });
  const values = found.map(valueOf);
  const added = values.filter((value) => !isGiven(value));
  if (near && added.length && added.every((value) => value.equals(added[0]))) return added[0];
  if (!found.length || found.at(-1) !== matches.at(-1)) return null;
  const [value, before] = [values.at(-1), preceding(sentence, matches.at(-1))];
  if (!added.length && near && (BEING.test(before) || values.every((other) => other.equals(value)))) return value;
  return added.length && LINK.test(before) ? value : null;
}
