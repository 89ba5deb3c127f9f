// Parser for final answers, a port of runtime/arithmetic/final_answer.py. The tests run both on the same
// vectors, tests/data/arithmetic.json.

import { Fraction } from "./fraction.js";

const NUMBER_CHARACTERS_MAX = 1_000;
const EXPONENT_MAX = 300n; // absolute value of a power of ten
const MAGNITUDE_LIMIT = 10n ** 400n; // of a numerator or denominator
const DECIMAL_PLACES_MAX = 100; // a finite decimal with more is written as a fraction

export const VULGAR_FRACTIONS = { "½": " 1/2", "⅓": " 1/3", "⅔": " 2/3", "¼": " 1/4", "¾": " 3/4" };
const ASCII_SPACE = String.raw`[ \t\n\r\f\v]`;
const BOL = String.raw`(?<![^\n])`; // the start of a line

const NORMALIZATIONS = [
  ["[\u2212\u2010\u2011\u2013]", "-"],
  [String.raw`[\u00a0~]|\\[ ()\[\]]`, " "],
  [String.raw`[\u2009\u202f]|\\[,!;:]`, ""],
  [String.raw`\{,\}`, ","],
  [String.raw`\\([$%£€#])`, "$1"],
  [String.raw`\u00d7|\\(?:times|cdot)(?![a-z])`, "*"],
  [String.raw`\\(?:text|math|left|right|display|q?quad)[a-z]*`, ""],
  [String.raw`\^\{([^{}]*)\}`, "^$1"],
  [String.raw`(?<=\d)${ASCII_SPACE}?(?=\\[dt]?frac)`, " "],
  [String.raw`\\[dt]?frac${ASCII_SPACE}?(\d)${ASCII_SPACE}?(\d)`, "$1/$2"],
  [String.raw`\\[dt]?frac${ASCII_SPACE}?\{([^{}]*)\}${ASCII_SPACE}?\{([^{}]*)\}`, "$1/$2"],
  [String.raw`\b(?:step|question|problem|equation|example)${ASCII_SPACE}?#?\d+`, ""],
  [String.raw`${BOL}[ \t>#*-]*\d{1,2}[.)](?=[ \t]+[^ \t\n\r\f\v])`, ""],
  [String.raw`\b\d+(?:st|nd|rd|th)\b`, ""],
].map(([pattern, replacement]) => [new RegExp(pattern, "gi"), replacement]);

export const DECIMAL = String.raw`(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)`;
const NUMBER_PATTERN = [
  String.raw`(?<sign>(?<![\w)\]}%$])-)?(?:[$€£]${ASCII_SPACE}?){0,2}(?<innerSign>(?<=[$€£])-)?(?<![\w^])(?<!\d\.)`,
  String.raw`(?:(?=(?<whole>\d+))\k<whole>(?: | and )(?=${DECIMAL} ?/ ?\d))?(?<number>${DECIMAL})`,
  String.raw`(?: ?/ ?[$€£]?(?<denominator>${DECIMAL})|(?:e| ?[*x] ?10\^)(?<exponent>[+-]?\d+))?`,
].join("");
const NUMBER = new RegExp(NUMBER_PATTERN, "gi");
const FIRST_NUMBER = new RegExp(NUMBER_PATTERN, "iy");
const UNIT = new RegExp(
  String.raw`${ASCII_SPACE}?[%$€£°]?(?:[ \t\n\r\f\v/-]{0,3}[a-z\u00b0\u00b2\u00b3\u00b5][^\d=+*<>\n]{0,60}(?:\^?[23])?)?` +
    String.raw`[ \t\n\r\f\v.!)}*\`"'$]*$`,
  "iy",
);
const CUES = [
  String.raw`\\f?boxed${ASCII_SPACE}?\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)`,
  String.raw`####${ASCII_SPACE}*(?=([^\w\n]{0,6}\d[^\n]{0,300}))`,
  String.raw`(?<!/)\banswers?\b(?:[^\n\d.:=]{0,60}?\bis\b|\W{0,5}[:=>])[ \t\n\r\f\v*:#>_\`]*(?=([^\n]{1,300}))`,
].map((pattern) => new RegExp(pattern, "gi"));
const BOLD = /\*\*([^*\n]+)\*\*/g;
const SENTENCE_END = new RegExp(String.raw`[.!?](?=${ASCII_SPACE})|\n`);

/**
 * Find the final answer in a model's text.
 *
 * @param {string} text
 * @returns {?Fraction} the last boxed number, "#### …" or "answer is …"; else the result of the last sentence
 *   with a number. Null if the text has no number.
 */
export function finalAnswer(text) {
  const normalized = normalize(text);
  for (const value of afterCues(normalized)) return value;
  for (const value of inLastSentence(normalized)) return value;
  return null;
}

/** Write a number in a canonical form: "42", "-3.5", or "1/3" if the decimal does not end. */
export function formatNumber(value) {
  let places = 0;
  while (places <= DECIMAL_PLACES_MAX && 10n ** BigInt(places) % value.denominator) places++;
  if (places > DECIMAL_PLACES_MAX) return `${value.numerator}/${value.denominator}`;
  const scaled = (value.abs().numerator * 10n ** BigInt(places)) / value.denominator;
  const digits = scaled.toString().padStart(places + 1, "0");
  const [whole, decimals] = [digits.slice(0, digits.length - places), digits.slice(digits.length - places)];
  return (value.numerator < 0n ? "-" : "") + whole + (decimals && `.${decimals}`);
}

function normalize(text) {
  let normalized = text.replace(/[½⅓⅔¼¾]/g, (sign) => VULGAR_FRACTIONS[sign]);
  for (const [pattern, replacement] of NORMALIZATIONS) normalized = normalized.replace(pattern, replacement);
  return normalized;
}

/** Parse one number as people write it; null if the text is not one number. */
function parseNumber(text) {
  const normalized = normalize(text).replace(/^[ \t\n({*`"']+/, "");
  FIRST_NUMBER.lastIndex = 0;
  const match = FIRST_NUMBER.exec(normalized);
  if (!match) return null;
  UNIT.lastIndex = FIRST_NUMBER.lastIndex;
  return UNIT.test(normalized) ? valueOf(match) : null;
}

function valueOf(match) {
  const { whole = "0", number, denominator = "1", exponent = "0", sign, innerSign } = match.groups;
  if (match[0].length > NUMBER_CHARACTERS_MAX) return null;
  const power = BigInt(exponent.replace("+", ""));
  const divisor = Fraction.parse(denominator.replaceAll(",", ""));
  if (power > EXPONENT_MAX || power < -EXPONENT_MAX || divisor.isZero()) return null;
  const fraction = Fraction.parse(number.replaceAll(",", "")).dividedBy(divisor);
  const value = new Fraction(BigInt(whole)).plus(fraction).times(new Fraction(10n).power(Number(power)));
  if (value.reaches(MAGNITUDE_LIMIT)) return null;
  return sign || innerSign ? value.negated() : value;
}

function numbers(text, lastFirst = false) {
  const matches = [...text.matchAll(NUMBER)];
  return (lastFirst ? matches.reverse() : matches).map(valueOf).filter((value) => value !== null);
}

const afterEquals = (text) => text.slice(text.lastIndexOf("=") + 1);

/** Yield what the sentence at the first number equals ("5 + 3 = 8"), then all numbers. */
function* statedNumbers(text) {
  const first = text.search(new RegExp(NUMBER_PATTERN, "i"));
  if (first < 0) return;
  yield* numbers(afterEquals(text.slice(first).split(SENTENCE_END, 1)[0]));
  yield* numbers(text);
}

function* afterCues(text) {
  for (const cue of CUES) for (const match of [...text.matchAll(cue)].reverse()) yield* statedNumbers(match[1]);
}

function* inLastSentence(text) {
  for (const sentence of text.split(SENTENCE_END).reverse()) {
    const bold = [...sentence.matchAll(BOLD)].reverse().map(([, content]) => parseNumber(afterEquals(content)));
    yield* bold.filter((value) => value !== null);
    if (sentence.includes("=")) yield* numbers(afterEquals(sentence));
    yield* numbers(sentence, true);
  }
}
