// Parser for the sides of equations, a port of runtime/arithmetic/expression.py.

import { HUNDRED } from "./fraction.js";
import { numberValue } from "./lexer.js";
import { limits, prose, words } from "./tables.js";

export const PERCENT = "%";

const MAGNITUDE_LIMIT = 10n ** BigInt(limits.magnitude_digits); // of a numerator or denominator
const THOUSANDS = 3; // digits after a point that may be a separator of thousands
const RANKS = { "+": 0, "-": 0, "\u2013": 0, "*": 1, "/": 2 }; // a tight sign binds more than a spaced one
const [NOUN, PLURAL] = [prose("noun"), prose("plural")];
const NO_NOUNS = new Set([...words.parts, ...words.bases, ...words.suffixes]);
const END = { kind: "end", text: "", start: 0, end: 0, tight: false };

class UnreadError extends Error {}

function unread() {
  throw new UnreadError();
}

/** A number with at most one unit; see Quantity in expression.py. */
class Quantity {
  constructor(value, unit = "") {
    if (value.reaches(MAGNITUDE_LIMIT)) unread();
    Object.assign(this, { value, unit });
  }

  negated() {
    return new Quantity(this.value.negated(), this.unit);
  }

  plus(other) {
    if (this.unit !== other.unit) unread();
    return new Quantity(this.value.plus(other.value), this.unit);
  }

  times(other) {
    const units = [this.unit, other.unit].filter((unit) => unit && unit !== PERCENT);
    if (units.length > 1) unread();
    return new Quantity(this.value.times(other.value), units.join(""));
  }

  dividedBy(other) {
    if (other.unit || other.value.isZero()) unread();
    return new Quantity(this.value.dividedBy(other.value), this.unit);
  }
}

/** A unit without the end of a plural: "egg", "box"; shorter symbols have none. */
export const stem = (unit) => unit.replace(PLURAL, "");

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
  let quantity;
  try {
    quantity = parser.sum();
  } catch (failure) {
    if (failure instanceof UnreadError) return null;
    throw failure;
  }
  const [own, operators] = [lexemes.slice(start, parser.position), parser.operators.map(({ text }) => text).join("")];
  const ranks = (isTight) =>
    parser.operators.filter(({ kind, tight }) => kind === "operator" && tight === isTight).map(({ text }) => RANKS[text]);
  if (Math.min(...ranks(true)) <= Math.max(...ranks(false))) return null; // "2-3 * 5", "6 / 2*3"
  const doubtful =
    operators.includes("\u2013") || // a range?
    (operators.includes("-") && ranks(true).includes(0)) || // "9-5"
    (own[0].text === "-" && operators !== "") || // "-5 + 3": a dash?
    /\/[*/]/.test(operators) || // "6 / 2 * 3"
    own.some(({ kind, text }) => kind === "percent" || text.split(".")[1]?.length === THOUSANDS); // "20% + 20% = 44%"
  const number = own.find(({ kind }) => kind === "number");
  return [{ quantity, operators, doubtful, lexemes: own, number }, parser.position];
}

/** Recursive-descent parser with one method per level of precedence. */
class Parser {
  constructor(lexemes, position) {
    Object.assign(this, { lexemes, position, brackets: 0, operators: [] });
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
    if (lexeme) this.operators.push(lexeme);
    return lexeme;
  }

  /** Read an expression. */
  sum() {
    let total = this.product();
    for (let operator; (operator = this.operator("+", "-", "\u2013")); ) {
      const term = this.product();
      total = total.plus(operator.text === "+" ? term : term.negated());
    }
    return total;
  }

  product() {
    let value = this.signed();
    for (let operator; (operator = this.operator("*", "/")); ) {
      const factor = this.signed();
      value = operator.text === "/" ? value.dividedBy(factor) : value.times(factor);
    }
    return value;
  }

  signed() {
    const sign = this.accept("operator", "-");
    if (sign && this.next.start !== sign.end) unread(); // "- 5"
    const value = this.operand();
    return sign ? value.negated() : value;
  }

  operand() {
    const fraction = this.accept("fraction");
    if (fraction) {
      this.operators.push(fraction);
      return this.enclosed("{", "}").dividedBy(this.enclosed("{", "}"));
    }
    if (this.next.kind === "open") return this.enclosed("(", ")");
    const [currency, number] = [this.accept("currency"), this.accept("number")];
    if (!number) unread();
    const value = numberValue(number);
    if (!currency && this.accept("percent")) return new Quantity(value.dividedBy(HUNDRED), PERCENT);
    return new Quantity(value, currency ? currency.text.at(-1) : this.noun());
  }

  /** Read the noun or symbol of a unit, if one follows. */
  noun() {
    const { kind, text, tight } = this.next;
    const [isSymbol, noun] = [words.symbols.has(text), text.toLowerCase()];
    const isNoun = !tight && NOUN.test(noun) && !noun.split("-").some((part) => NO_NOUNS.has(part));
    if (kind !== "word" || !(isSymbol || isNoun)) return "";
    this.position++;
    return stem(isSymbol ? text : noun);
  }

  enclosed(opens, closes) {
    if (++this.brackets > limits.brackets || !this.accept("open", opens)) unread();
    const value = this.sum();
    return this.accept("close", closes) ? value : unread();
  }
}
