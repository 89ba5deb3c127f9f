// Parser for the sides of equations, a port of runtime/arithmetic/expression.py.

import { Fraction, HUNDRED, ONE, ZERO } from "./fraction.js";
import { expandVulgar, limits, words } from "./tables.js";

const MAGNITUDE_LIMIT = 10n ** BigInt(limits.magnitude_digits); // of a numerator or denominator
const SYMBOL_CHARS = 2; // at most, of units without a plural
const THOUSANDS = 3; // digits after a point that may be a separator of thousands
const CLOSING = { "(": ")", "[": "]", "{": "}" };
const ES = /(?:s|x|z|ch|sh|o)$/; // a plural after these ends in "es"
const END = { kind: "end", text: "", start: 0, end: 0, tight: false };

class UnreadError extends Error {}

function unread() {
  throw new UnreadError();
}

/** A number with at most one unit; see Quantity in expression.py. */
class Quantity {
  constructor(value, unit = "", percent = false) {
    if (value.reaches(MAGNITUDE_LIMIT)) unread();
    Object.assign(this, { value, unit, percent });
  }

  plus(other) {
    const unit = commonUnit(this, other);
    if (unit === null || this.percent !== other.percent) unread();
    return new Quantity(this.value.plus(other.value), unit, this.percent);
  }

  times(other) {
    if (this.unit && other.unit) unread();
    return new Quantity(this.value.times(other.value), this.unit || other.unit);
  }

  dividedBy(other) {
    if (other.unit || other.value.isZero()) unread();
    return new Quantity(this.value.dividedBy(other.value), this.unit, this.percent && !other.percent);
  }

  negated() {
    return new Quantity(this.value.negated(), this.unit, this.percent);
  }
}

/** The unit of two quantities if they have the same: "1 egg", "2 eggs"; null if they differ. */
export function commonUnit(one, other) {
  for (const [{ value, unit }, plural] of [[one, other], [other, one]]) {
    const isOne = value.equals(ONE) && unit.length > SYMBOL_CHARS;
    if (plural.unit === unit || (isOne && plural.unit === unit + (ES.test(unit) ? "es" : "s"))) return plural.unit;
  }
  return null;
}

/**
 * Parse the expression that begins at a lexeme.
 *
 * @param {object[]} lexemes
 * @param {number} start
 * @returns {?[object, number]} the side (see Side in expression.py) and the index after it; null if the grammar
 *   does not read it.
 */
export function parseSide(lexemes, start) {
  const parser = new Parser(lexemes, start);
  try {
    const quantity = parser.read();
    const { position, operators } = parser;
    const doubtful = parser.doubtful || (lexemes[start].text === "-" && operators.length > 0); // "-5 + 3": a dash?
    const number = lexemes.slice(start).find(({ kind }) => kind === "number").text;
    const { end } = lexemes.slice(0, position).findLast(({ kind }) => kind !== "word");
    return [{ quantity, operators, doubtful, start: lexemes[start].start, end, number }, position];
  } catch (failure) {
    if (failure instanceof UnreadError) return null;
    throw failure;
  }
}

/** Recursive-descent parser with one method per level of precedence. */
class Parser {
  constructor(lexemes, position) {
    Object.assign(this, { lexemes, position, nesting: 0, operators: [], doubtful: false, joined: false, spaced: false });
  }

  get next() {
    return this.lexemes[this.position] ?? END;
  }

  /** Consume the next lexeme if it has this kind and, if texts are given, one of them. */
  accept(kind, ...texts) {
    const lexeme = this.next;
    if (lexeme.kind !== kind || (texts.length && !texts.includes(lexeme.text))) return null;
    this.position++;
    return lexeme;
  }

  operator(...texts) {
    const lexeme = this.accept("operator", ...texts);
    if (!lexeme) return null;
    this.operators.push(lexeme.text);
    if (!lexeme.tight) this.spaced = true;
    else if ("+-".includes(lexeme.text)) this.joined = true;
    return lexeme;
  }

  /** Read an expression. */
  read() {
    const quantity = this.sum();
    return this.joined && this.spaced ? unread() : quantity; // "2-3 * 5"
  }

  sum() {
    let total = this.product();
    for (let operator; (operator = this.operator("+", "-", "\u2013")); ) {
      const [{ text, tight }, term] = [operator, this.product()];
      this.doubtful ||= text === "\u2013" || (text === "-" && tight); // "9-5"
      total = total.plus(text === "+" ? term : term.negated());
    }
    return total;
  }

  product() {
    let [value, last] = [this.signed(), END];
    for (let operator; (operator = this.operator("*", "/")); ) {
      if (last.text === "/" && operator.tight && !last.tight) unread(); // "8 / 1/2"
      this.doubtful ||= last.text === "/"; // "6 / 2 * 3"
      const factor = this.signed();
      last = operator;
      value = operator.text === "/" ? value.dividedBy(factor) : value.times(factor);
    }
    return value;
  }

  signed() {
    const sign = this.accept("operator", "-");
    if (!sign) return this.power();
    const [count, isDash] = [this.operators.length, this.next.start !== sign.end];
    const value = this.power();
    if (isDash || this.operators.slice(count).includes("^")) unread(); // "- 5", "-3^2"
    return value.negated();
  }

  power() {
    const base = this.operand();
    if (!this.operator("^")) return base;
    const [braced, number] = [this.accept("brace", "{"), this.accept("number")];
    if (!number || !/^[0-9]+$/.test(number.text) || BigInt(number.text) > limits.exponent) unread();
    if ((braced && !this.accept("brace", "}")) || this.next.text === "^" || base.unit || base.percent) unread();
    return new Quantity(base.value.power(Number(number.text)));
  }

  operand() {
    let currency = this.accept("currency");
    const number = this.accept("number");
    if (!number) return this.group(currency);
    this.doubtful ||= (number.text.split(".")[1] ?? "").length === THOUSANDS;
    const value = parseMixedNumber(number.text) ?? unread();
    if (!currency && this.accept("percent")) {
      this.doubtful = true; // "20% + 20% = 44%"
      return new Quantity(value.dividedBy(HUNDRED), "", true);
    }
    if (!currency && this.next.tight) currency = this.accept("currency");
    return new Quantity(value, currency ? currency.text.at(-1) : this.noun());
  }

  noun() {
    const { kind, text, tight } = this.next;
    const isSymbol = words.symbols.has(text);
    if (kind !== "word" || !(isSymbol || (isNoun(text.toLowerCase()) && !tight))) return "";
    this.position++;
    return isSymbol ? text : text.toLowerCase();
  }

  /** Parse an expression in parentheses, or a fraction of two in braces. */
  group(currency) {
    if (currency) unread();
    if (!this.accept("fraction")) return this.enclosed("open", "close");
    const numerator = this.enclosed("brace", "brace");
    this.operators.push("/");
    return numerator.dividedBy(this.enclosed("brace", "brace"));
  }

  enclosed(opens, closes) {
    const opening = this.accept(opens);
    this.nesting++;
    if (!opening || this.nesting > limits.nesting) unread();
    const value = this.sum();
    this.nesting--;
    if (!this.accept(closes, CLOSING[opening.text] ?? "")) unread();
    return value;
  }
}

/** Whether a word after a number, in lower case, may be what it counts, and does not calculate. */
function isNoun(word) {
  const calculates = (part) => [words.parts, words.bases, words.suffixes].some((table) => table.has(part));
  const isWord = word.length > 1 && /^[a-z]+(?:-[a-z]+)*$/.test(word); // "push-ups"
  return isWord && !word.split("-").some(calculates) && !/(?:ed|ing)$/.test(word);
}

/** Parse a number of the table "lexemes": "12", "1,234.5", "2½"; null if it is too long. */
export function parseMixedNumber(text) {
  if (text.replace(/[^0-9]/g, "").length > limits.digits) return null;
  const parts = expandVulgar(text.replaceAll(",", "")).trim().split(" ");
  return parts.map(Fraction.parse).reduce((sum, part) => sum.plus(part), ZERO);
}
