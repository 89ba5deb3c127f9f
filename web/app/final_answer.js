// The final answer that a model's text gives, as an exact number: the rules of runtime/answer.py, line by line.
// The vectors that both are tested with are in tests/data/arithmetic.json.

import { Fraction } from "./fraction.js";

const TOKEN = 1_000; // characters of the longest number read
const EXPONENT = 300n; // the largest power of ten, up or down
const LIMIT = 10n ** 400n;
const PLACES = 100; // decimal places up to which a finite decimal is written as one

export const VULGAR = { "½": " 1/2", "⅓": " 1/3", "⅔": " 2/3", "¼": " 1/4", "¾": " 3/4" };
const S = String.raw`[ \t\n\r\f\v]`; // white space in ASCII
const BOL = String.raw`(?<![^\n])`; // the beginning of a line

const PLAIN = [
  ["[\u2212\u2010\u2011\u2013]", "-"],
  [String.raw`[\u00a0~]|\\[ ()\[\]]`, " "],
  [String.raw`[\u2009\u202f]|\\[,!;:]`, ""],
  [String.raw`\{,\}`, ","],
  [String.raw`\\([$%£€#])`, "$1"],
  [String.raw`\u00d7|\\(?:times|cdot)(?![a-z])`, "*"],
  [String.raw`\\(?:text|math|left|right|display|q?quad)[a-z]*`, ""],
  [String.raw`\^\{([^{}]*)\}`, "^$1"],
  [String.raw`(?<=\d)${S}?(?=\\[dt]?frac)`, " "],
  [String.raw`\\[dt]?frac${S}?(\d)${S}?(\d)`, "$1/$2"],
  [String.raw`\\[dt]?frac${S}?\{([^{}]*)\}${S}?\{([^{}]*)\}`, "$1/$2"],
  [String.raw`\b(?:step|question|problem|equation|example)${S}?#?\d+`, ""],
  [String.raw`${BOL}[ \t>#*-]*\d{1,2}[.)](?=[ \t]+[^ \t\n\r\f\v])`, ""],
  [String.raw`\b\d+(?:st|nd|rd|th)\b`, ""],
].map(([form, plain]) => [new RegExp(form, "gi"), plain]);

export const DECIMAL = String.raw`(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)`;
const NUMBER_FORM = [
  String.raw`(?<sign>(?<![\w)\]}%$])-)?(?:[$€£]${S}?){0,2}(?<inner>(?<=[$€£])-)?(?<![\w^])(?<!\d\.)`,
  String.raw`(?:(?=(?<whole>\d+))\k<whole>(?: | and )(?=${DECIMAL} ?/ ?\d))?(?<number>${DECIMAL})`,
  String.raw`(?: ?/ ?[$€£]?(?<under>${DECIMAL})|(?:e| ?[*x] ?10\^)(?<exponent>[+-]?\d+))?`,
].join("");
const NUMBER = new RegExp(NUMBER_FORM, "gi");
const FIRST_NUMBER = new RegExp(NUMBER_FORM, "iy");
const UNIT = new RegExp(
  String.raw`${S}?[%$€£°]?(?:[ \t\n\r\f\v/-]{0,3}[a-z\u00b0\u00b2\u00b3\u00b5][^\d=+*<>\n]{0,60}(?:\^?[23])?)?` +
    String.raw`[ \t\n\r\f\v.!)}*\`"'$]*$`,
  "iy",
);
const CUES = [
  String.raw`\\f?boxed${S}?\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)`,
  String.raw`####${S}*(?=([^\w\n]{0,6}\d[^\n]{0,300}))`,
  String.raw`(?<!/)\banswers?\b(?:[^\n\d.:=]{0,60}?\bis\b|\W{0,5}[:=>])[ \t\n\r\f\v*:#>_\`]*(?=([^\n]{1,300}))`,
].map((form) => new RegExp(form, "gi"));
const BOLD = /\*\*([^*\n]+)\*\*/g;
const SENTENCE_END = new RegExp(String.raw`[.!?](?=${S})|\n`);

/**
 * @param {string} text that a model wrote.
 * @returns {?Fraction} the last boxed number, "#### …" or "answer is …"; else what the last sentence with a
 *   number comes to. Null where the text has no number.
 */
export function finalAnswer(text) {
  const all = plain(text);
  for (const value of cued(all)) return value;
  for (const value of closing(all)) return value;
  return null;
}

/** Write a number in the one way that equal numbers share: "42", "-3.5", "1/3" where no decimal ends. */
export function formatNumber(value) {
  let places = 0;
  while (places <= PLACES && 10n ** BigInt(places) % value.under) places += 1;
  if (places > PLACES) return `${value.over}/${value.under}`;
  const size = value.size();
  const digits = ((size.over * 10n ** BigInt(places)) / size.under).toString().padStart(places + 1, "0");
  const [whole, part] = [digits.slice(0, digits.length - places), digits.slice(digits.length - places)];
  return (value.over < 0n ? "-" : "") + whole + (part && `.${part}`);
}

function plain(text) {
  let written = text.replace(/[½⅓⅔¼¾]/g, (sign) => VULGAR[sign]);
  for (const [form, instead] of PLAIN) written = written.replace(form, instead);
  return written;
}

/** One number as people write it, or null where the text is not one. */
function parseNumber(text) {
  const bare = plain(text).replace(/^[ \t\n({*`"']+/, "");
  FIRST_NUMBER.lastIndex = 0;
  const found = FIRST_NUMBER.exec(bare);
  if (!found) return null;
  UNIT.lastIndex = FIRST_NUMBER.lastIndex;
  return UNIT.test(bare) ? valueOf(found) : null;
}

function valueOf(found) {
  const { whole = "0", number, under = "1", exponent = "0", sign, inner } = found.groups;
  if (found[0].length > TOKEN) return null;
  const power = BigInt(exponent.replace("+", ""));
  const divisor = Fraction.of(under.replaceAll(",", ""));
  if (power > EXPONENT || power < -EXPONENT || divisor.isZero()) return null;
  const part = Fraction.of(number.replaceAll(",", "")).by(divisor);
  const value = new Fraction(BigInt(whole)).plus(part).times(new Fraction(10n).power(Number(power)));
  if (value.reaches(LIMIT)) return null;
  return sign || inner ? value.negative() : value;
}

function numbers(text, lastFirst = false) {
  const found = [...text.matchAll(NUMBER)];
  return (lastFirst ? found.reverse() : found).map(valueOf).filter((value) => value !== null);
}

const afterEquals = (text) => text.slice(text.lastIndexOf("=") + 1);

/** The first number of a scope, or what the sentence that it opens says it comes to: "5 + 3 = 8". */
function* stated(scope) {
  const first = scope.search(new RegExp(NUMBER_FORM, "i"));
  if (first < 0) return;
  yield* numbers(afterEquals(scope.slice(first).split(SENTENCE_END, 1)[0]));
  yield* numbers(scope);
}

function* cued(text) {
  for (const cue of CUES) for (const found of [...text.matchAll(cue)].reverse()) yield* stated(found[1]);
}

function* closing(text) {
  for (const sentence of text.split(SENTENCE_END).reverse()) {
    const bold = [...sentence.matchAll(BOLD)].reverse().map(([, inside]) => parseNumber(afterEquals(inside)));
    yield* bold.filter((value) => value !== null);
    if (sentence.includes("=")) yield* numbers(afterEquals(sentence));
    yield* numbers(sentence, true);
  }
}

