// A check of every equation that a text holds: the rules of runtime/calculator.py, line by line.

import { firstOf, readAfter, readBefore } from "./expression.js";
import { finalAnswer, formatNumber } from "./final.js";
import { Fraction, HALF, HUNDRED } from "./fraction.js";
import { blanked, EDGE, S } from "./notation.js";

const REACH = 300; // characters before and after a sign that are looked at
const EXACT = ["=", "is"];
const ROUNDING = ["\u2248", "\\approx"];
const SIGN = new RegExp(String.raw`[<>!:]?=[=<>]*|\u2248|\\approx(?![a-zA-Z])|${EDGE}is${EDGE}`, "gu");
const ABOUT = new RegExp(`[${S}]*(?:about|approximately|roughly)${EDGE}`, "iuy");
const ANNOTATED = new RegExp(`(?<==)[${S}]?<<[^<>\\n]*>>`, "gu"); // GSM8K's "3 * 4 = <<3*4=12>>12"
const TRAILING_SPACE = new RegExp(`[${S}]+$`, "u");

/**
 * Every equation of a text whose sides are understood, in order.
 *
 * @param {string} text
 * @returns {Array<{expression: string, claimed: string, computed: string, ok: boolean}>}
 */
export function steps(text) {
  const plain = blanked(text).replace(ANNOTATED, (found) => " ".repeat(found.length));
  const signs = [...plain.matchAll(SIGN)].map((found) => ({
    text: found[0],
    start: found.index,
    end: found.index + found[0].length,
  }));
  const found = signs.map((sign, place) => {
    const start = place ? signs[place - 1].end : 0;
    return step(text, plain, start, sign, signs[place + 1]?.start ?? plain.length);
  });
  return found.filter(Boolean);
}

/** Whether a text's equations hold and its final answer, as formatNumber() writes it, is one's result. */
export function verified(found, value) {
  return found.every(({ ok }) => ok) && found.some((one) => value === one.claimed || value === one.computed);
}

/** What a text comes to: its equations, its final value, and whether that is verified. */
export function check(text) {
  const number = finalAnswer(text);
  const value = number === null ? null : formatNumber(number);
  const found = steps(text);
  return { steps: found, value, verified: verified(found, value) };
}

/** The sum before an equals sign, or before "is" where it is a share. */
function leftOf(plain, start, sign, whole) {
  const end = start + plain.slice(start, sign.start).replace(TRAILING_SPACE, "").length;
  const left = readBefore(plain, start, end, whole);
  if (!left?.operators.length) return null;
  const share = left.operators.length === 1 && left.operators[0] === "of" && firstOf(left, "percent");
  return share || sign.text !== "is" ? left : null;
}

function rightOf(plain, start, end) {
  const near = Math.min(end, start + REACH);
  const right = readAfter(plain, start, near);
  return right && (near === end || right.lexemes.at(-1).end < near) ? right : null;
}

/** The equation around a sign, of which nothing stands before `start` or behind `end`. */
function step(text, plain, start, sign, end) {
  if (![...EXACT, ...ROUNDING].includes(sign.text)) return null;
  const near = Math.max(start, sign.start - REACH);
  ABOUT.lastIndex = sign.end;
  const about = ABOUT.test(plain.slice(0, end)) ? ABOUT.lastIndex : null;
  const left = leftOf(plain, near, sign, near === start);
  const right = left && rightOf(plain, about ?? sign.end, end);
  if (!right) return null;
  const rounding = about !== null || ROUNDING.includes(sign.text);
  const after = right.lexemes.at(-1).end;
  const cut = plain.startsWith("..", after) || plain.startsWith("\u2026", after); // "0.66..."
  const values = [left.quantity.value];
  if (left.quantity.percent !== right.quantity.percent) {
    values.push(left.quantity.percent ? values[0].by(HUNDRED) : values[0].times(HUNDRED));
  }
  const agreeing = values.filter((value) => agrees(value, right, rounding, cut));
  return {
    expression: text.slice(left.lexemes[0].start, sign.start).replace(/[ \t\n\\&]+$/, ""),
    claimed: formatNumber(right.quantity.value),
    computed: formatNumber((agreeing.length ? agreeing : values).at(-1)),
    ok: agreeing.length > 0,
  };
}

/** Whether a right side is a value, or that rounded half up or half to even, or cut after its places. */
function agrees(value, right, rounding, cut) {
  const claimed = right.quantity.value;
  const number = firstOf(right, "number");
  const point = number.indexOf(".");
  const places = right.operators.length || point < 0 ? 0 : number.length - point - 1;
  const opposed = claimed.times(value).over < 0n;
  if (claimed.equals(value) || !(rounding || places) || opposed) return claimed.equals(value);
  const scale = new Fraction(10n ** BigInt(places));
  const size = value.size().times(scale);
  const rounded = [size.round(), size.plus(HALF).floor(), cut ? size.floor() : size.round()];
  return rounded.some((whole) => claimed.size().times(scale).equals(new Fraction(whole)));
}
