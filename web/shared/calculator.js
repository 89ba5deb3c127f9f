// Checks of the equations in a text, a port of runtime/arithmetic/calculator.py.

import { firstOf, parseLeftSide, parseMixedNumber, parseRightSide } from "./expression.js";
import { formatNumber } from "./final_answer.js";
import { Fraction, HALF, HUNDRED } from "./fraction.js";
import { blankMarkup } from "./lexer.js";
import { anyCase, limits, prose, relations, TRAILING_SPACE } from "./tables.js";

const { equalities: EQUALITIES, approximations: APPROXIMATIONS } = relations;
const RELATION = prose("relation", "g");
const ROUNDING_WORD = anyCase("rounding_word", "y");
const ANNOTATION = prose("annotation", "g"); // GSM8K's "3 * 4 = <<3*4=12>>12"

/**
 * Check every equation of a text whose two sides can be parsed, in order.
 *
 * @param {string} text
 * @returns {Array<{expression: string, claimed: string, computed: string, ok: boolean}>}
 */
export function checkSteps(text) {
  const plain = blankMarkup(text).replace(ANNOTATION, (match) => " ".repeat(match.length));
  const signs = [...plain.matchAll(RELATION)].map(({ 0: sign, index }) => ({
    text: sign,
    start: index,
    end: index + sign.length,
  }));
  const steps = signs.map((sign, index) => {
    const start = index ? signs[index - 1].end : 0;
    return checkStep(text, plain, start, sign, signs[index + 1]?.start ?? plain.length);
  });
  return steps.filter(Boolean);
}

/** Whether all steps hold and one results in the final answer, as formatNumber() writes it. */
export function isVerified(steps, value) {
  return steps.every(({ ok }) => ok) && steps.some((step) => value === step.claimed || value === step.computed);
}

/** Parse the sum before "=", or the share ("20% of 85") before "is". */
function leftSide(plain, start, sign, bounded) {
  const end = start + plain.slice(start, sign.start).replace(TRAILING_SPACE, "").length;
  const left = parseLeftSide(plain, start, end, bounded);
  if (!left?.operators.length) return null;
  const isShare = left.operators.length === 1 && left.operators[0] === "of" && firstOf(left, "percent");
  return isShare || sign.text !== "is" ? left : null;
}

/** Check the equation at a relation sign, whose sides are between `start` and `end`. */
function checkStep(text, plain, start, sign, end) {
  if (![...EQUALITIES, ...APPROXIMATIONS].includes(sign.text)) return null;
  const windowStart = Math.max(start, sign.start - limits.window);
  ROUNDING_WORD.lastIndex = sign.end;
  const wordEnd = ROUNDING_WORD.test(plain.slice(0, end)) ? ROUNDING_WORD.lastIndex : null;
  const left = leftSide(plain, windowStart, sign, windowStart === start);
  const resultStart = wordEnd ?? sign.end;
  const windowEnd = Math.min(end, resultStart + limits.window);
  const right = left && parseRightSide(plain, resultStart, windowEnd, windowEnd === end);
  if (!right || right.operators.includes("of") || !left.quantity.agreesWith(right.quantity)) return null;
  const rounds = wordEnd !== null || APPROXIMATIONS.includes(sign.text);
  const after = right.lexemes.at(-1).end;
  const truncates = plain.startsWith("..", after) || plain.startsWith("\u2026", after); // "0.66..."
  const asWritten = left.quantity.value;
  let value = asWritten;
  if (left.quantity.percent !== right.quantity.percent) {
    value = left.quantity.percent ? value.dividedBy(HUNDRED) : value.times(HUNDRED);
  }
  const ok = matches(value, right, rounds, truncates);
  const runs = right.operators.length > 0 && value.equals(parseMixedNumber(firstOf(right, "number")));
  if (!ok && runs) return null; // a running total: "3 * 4 = 12 + 5"
  if (!ok && !value.equals(asWritten) && matches(asWritten, right, rounds, truncates)) return null; // "100 - 80 = 20%"
  return {
    expression: text.slice(left.lexemes[0].start, sign.start).replace(/[ \t\n\\&]+$/, ""),
    claimed: formatNumber(right.quantity.value),
    computed: formatNumber(value),
    ok,
  };
}

/** Whether a right side is a value: exactly, rounded half up or half to even, or truncated. */
function matches(value, right, rounds, truncates) {
  const claimed = right.quantity.value;
  const number = firstOf(right, "number");
  const point = number.indexOf(".");
  const places = right.operators.length || point < 0 ? 0 : number.length - point - 1;
  const exact = !places || claimed.isZero() || 10n ** BigInt(limits.money_places) % value.denominator === 0n;
  const oppositeSigns = claimed.times(value).numerator < 0n;
  if (claimed.equals(value) || oppositeSigns || (exact && !rounds)) return claimed.equals(value);
  const scale = new Fraction(10n ** BigInt(places));
  const scaled = value.abs().times(scale);
  const rounded = [scaled.round(), scaled.plus(HALF).floor(), truncates ? scaled.floor() : scaled.round()];
  return rounded.some((integer) => claimed.abs().times(scale).equals(new Fraction(integer)));
}
