// Arithmetic as models write it in prose, read exactly: the rules of runtime/expression.py, line by line.

import { VULGAR } from "./final.js";
import { Fraction, ONE, ZERO } from "./fraction.js";
import { D, ENDS, lexemes, W } from "./notation.js";
import { NUMBERING, Quantity, TELLING, Unclear, unclear, union, units } from "./quantity.js";

const DIGITS = 18; // of the longest number read
const DEPTH = 20; // of parentheses within parentheses
const POWER = 64n; // the largest exponent

const OPERANDS = ["number", "currency", "open", "fraction"]; // what begins an expression
const CLOSING = { "(": ["close", ")"], "[": ["close", "]"], "{": ["brace", "}"] };
const APART = ["end", "break", "open", "close", "brace", "word"]; // what does not go on with one
const WORDS = ["word", "compound"];

const whole = (form) => new RegExp(`^(?:${form})$`, "u");
const CHANGING = whole(
  "hal(?:f|ves)|(?:third|quarter|fourth|fifth|sixth|eighth)s?|tenths?|twice|double|triple|thrice|squared?|cubed?" +
    "|root|sqrt|log|ln|sin|cos|tan|negative|dozen|hundred|thousand|(?:m|b|tr)illion|percent|than",
);
const JOINING = whole("times|plus|minus|over|divided|multiplied|less|mod|modulo|choose|per");
const NAMING = whole(
  "(?:step|day|week|month|year|question|problem|part|number|equation|example|case|option|method|page|chapter" +
    "|room|phase|level|round|grade|item|group|team|line|row|box|bag|player|person|student|set|trip|lap)s?",
);
const ARTICLES = ["of", "the", "a", "as", "by"];
const VARIABLE = whole(`(?!i)[${W}]|.*[${D}_].*`);
const CLOCK = new RegExp(`^0${D}`, "u"); // 0930, 007

/**
 * Read the expression that ends at a place.
 *
 * @param {string} text as blanked() returns it.
 * @param {boolean} isWhole nothing that belongs to it stands before `start`.
 * @returns {?{quantity: Quantity, operators: string[], lexemes: object[]}} null where it may be a part of
 *   something larger or mean something else.
 */
export function readBefore(text, start, end, isWhole) {
  const pieces = lexemes(text, start, end, isWhole);
  const first = beginning(pieces);
  if (first === null || !free(pieces, first)) return null;
  const found = read(pieces.slice(first));
  return found && found.lexemes.length === pieces.length - first - 1 ? found : null;
}

/** Read the expression that begins at a place, wherever it ends; null where it may go on. */
export function readAfter(text, start, end) {
  const pieces = lexemes(text, start, end).slice(1);
  const found = read(pieces, true);
  if (!found) return null;
  const after = pieces[found.lexemes.length].kind;
  const counted = found.lexemes.at(-1).kind === "word"; // then a number that follows is another
  return APART.includes(after) || (counted && OPERANDS.includes(after)) ? found : null;
}

/** The text of the first lexeme of a kind; empty where there is none. */
export function firstOf(expression, kind) {
  return expression.lexemes.find((lexeme) => lexeme.kind === kind)?.text ?? "";
}

/** Where the last expression begins: at the last operand that follows a word, or the end of a phrase. */
function beginning(pieces) {
  for (let place = pieces.length - 2; place > 0; place--) {
    const [kind, before] = [pieces[place].kind, pieces[place - 1].kind];
    if (before === "break") {
      const negated = pieces[place].text === "-" && pieces[place + 1].tight;
      return OPERANDS.includes(kind) || negated ? place : null;
    }
    if (WORDS.includes(before) && OPERANDS.includes(kind)) return place;
  }
  return null;
}

/** Whether nothing before an expression belongs to it. */
function free(pieces, first) {
  let place = first;
  while (WORDS.includes(pieces[place - 1]?.kind)) place--;
  const words = pieces.slice(place, first).map((piece) => piece.text.toLowerCase());
  const before = pieces.at(place - 1);
  const opens = pieces[first].kind === "open" && words.length > 0;
  if (opens && (pieces[first].tight || ENDS.includes(before.kind))) return false; // "f(3) + 1"
  const last = words.findLast((word) => !ARTICLES.includes(word)) ?? "";
  if (ENDS.includes(before.kind) && (JOINING.test(last) || pairs(words, pieces.slice(first)))) return false;
  const meaning = last.slice(last.lastIndexOf("-") + 1);
  if ([CHANGING, NAMING, VARIABLE].some((form) => form.test(meaning))) return false;
  if (before.kind === "break") return !continued(pieces.slice(0, place), pieces[first]);
  return !["open", "operator"].includes(before.kind) || (before.text === "/" && before.tight);
}

/** Whether the words between two numbers make them one: "3 boxes of 12", "2 hours 30 minutes". */
function pairs(words, pieces) {
  const joined = words.at(-1) === "and" || (words.length === 1 && !TELLING.test(words[0]));
  const counted = pieces.some((piece) => piece.kind === "word");
  return words.length <= 3 && (words.slice(-2).includes("of") || (joined && counted));
}

/** Whether an expression goes on with what stands before the break at the pieces' end. */
function continued(pieces, first) {
  const behind = pieces.slice(0, -1).reverse();
  const end = behind.findIndex((piece) => piece.kind === "break");
  const line = end < 0 ? behind : behind.slice(0, end);
  const last = pieces.findLast((piece) => piece.kind !== "break");
  if (last && ["operator", "open"].includes(last.kind)) return true;
  const mark = pieces.at(-1).text.trim().slice(-1);
  if (mark === "," && line.length > 1 && line[0].kind === "number") {
    return line[0].text.length <= 3 && first.text.length === 3; // "in 14, 400 / 80"
  }
  const column = line.some((piece) => piece.kind === "operator");
  return column && ["-", "\u2013", "*"].includes(mark); // of which the mark is the operator
}

function read(pieces, apart = false) {
  const reader = new Reader(pieces, apart);
  try {
    const quantity = reader.sum();
    return { quantity, operators: reader.operators, lexemes: pieces.slice(0, reader.place) };
  } catch (failure) {
    if (failure instanceof Unclear || failure instanceof RangeError) return null; // RangeError: by zero
    throw failure;
  }
}

/** A parser by recursive descent: a method for each level of precedence, which reads from `place` on. */
class Reader {
  /** @param {boolean} apart words that no operator follows need not be a unit. */
  constructor(pieces, apart) {
    Object.assign(this, { pieces, apart, place: 0, depth: 0, operators: [] });
    this.spaced = pieces.some((piece) => piece.kind === "operator" && !piece.tight);
  }

  get next() {
    return this.pieces[this.place];
  }

  get ahead() {
    return this.pieces[Math.min(this.place + 1, this.pieces.length - 1)];
  }

  take(kind, ...texts) {
    const piece = this.next;
    if (piece.kind !== kind || (texts.length && !texts.includes(piece.text))) return null;
    this.place++;
    return piece;
  }

  operator(...texts) {
    const piece = this.take("operator", ...texts);
    if (piece) this.operators.push(piece.text);
    return piece;
  }

  sum() {
    let total = this.product();
    for (let operator; (operator = this.operator("+", "-")); ) {
      const term = this.product();
      const minus = operator.text === "-";
      const less = total.value.against(term.value) < 0;
      if (minus && operator.tight && this.spaced && less) unclear(); // a range: "2-3 * 5"
      total = total.plus(minus ? term.negative() : term);
    }
    return total;
  }

  product() {
    let value = this.signed();
    let last = null;
    for (let operator; (operator = this.operator("*", "/", "of") ?? this.juxtaposed()); ) {
      const small = value.value.against(ZERO) > 0 && value.value.against(ONE) < 0;
      const part = value.percent || (small && !value.over.size);
      const of = operator.text === "of";
      if (clash(last, operator) || (of && !part)) unclear(); // "2 of 3"
      const factor = this.signed();
      last = operator;
      value = operator.text === "/" ? value.by(factor) : value.times(factor);
      if (of && ["+", "-"].includes(this.next.text)) unclear(); // "20% of 85 + 15"
    }
    return value;
  }

  /** The parenthesis of "2(3 + 4)", not passed. */
  juxtaposed() {
    if (this.next.kind !== "open" || !this.next.tight) return null;
    if (!["number", "close"].includes(this.pieces.at(this.place - 1).kind)) return null;
    this.operators.push("*");
    return this.next;
  }

  signed() {
    if (this.next.kind === "operator" && this.next.text === "-" && this.ahead.tight) {
      this.place++;
      return this.operand().negative();
    }
    return this.operand();
  }

  operand() {
    let symbol = this.take("currency");
    let value = this.primary();
    if (this.operator("^")) value = value.power(this.exponent());
    if (this.take("percent")) value = value.with({ percent: true });
    symbol ??= this.take("currency");
    if (value.over.size && (symbol || value.percent)) unclear();
    const [over, under] = this.units(Boolean(symbol || value.over.size));
    const money = new Set(symbol ? [symbol.text.at(-1)] : []);
    return value.with({ over: union(union(value.over, over), money), under: union(value.under, under) });
  }

  primary() {
    const number = this.take("number");
    if (number) return new Quantity(numberOf(number.text));
    if (this.take("fraction")) {
      const over = this.enclosed("brace");
      this.operators.push("/");
      return over.by(this.enclosed("brace"));
    }
    return this.enclosed("open");
  }

  enclosed(kind) {
    const opening = this.take(kind);
    this.depth++;
    if (!opening || !(opening.text in CLOSING) || this.depth > DEPTH) unclear();
    const value = this.sum();
    if (!this.take(...CLOSING[opening.text])) unclear();
    this.depth--;
    return value;
  }

  exponent() {
    const braced = this.take("brace", "{");
    const number = this.take("number");
    if (!number || !/^\d+$/.test(number.text) || BigInt(number.text) > POWER) unclear();
    if (braced && !this.take("brace", "}")) unclear();
    return Number(number.text);
  }

  /** What stands behind a number: "red apples", "miles/hour"; "/hour" where it counts something. */
  units(hasUnit) {
    const glued = this.next.kind === "word" && this.next.tight;
    let words = this.words();
    const counted = hasUnit || (this.apart && this.ahead.text.length > 1);
    while ((words.length || counted) && this.next.text === "/" && this.ahead.kind === "word") {
      this.place++;
      words = [...words, "per", ...this.words()];
    }
    if (this.apart && this.next.kind !== "operator") {
      const near = words[0] === "and" ? words.slice(1, 3) : words.slice(0, 1); // "3 and a half"
      if (!glued && !near.some((word) => NUMBERING.test(word)) && !words.includes("remainder")) words = [];
    }
    return units(words, glued);
  }

  words() {
    const words = [];
    for (let word; (word = this.take("word")); ) words.push(word.text.toLowerCase());
    return words;
  }
}

/** Whether the second of two operators may be meant to bind first: "8 / 1/2", "6/2(1 + 2)". */
function clash(last, operator) {
  if (last === null || last.text !== "/" || !operator.tight) return false;
  return operator.kind === "open" || !last.tight;
}

/** The value of a number; a mixed one's parts stand apart: "2 1/2", "2 and 1/2", "2½". */
function numberOf(text) {
  const bare = text.replaceAll(",", "").replaceAll("and", " ");
  const parts = bare.replace(/[½⅓⅔¼¾]/g, (sign) => VULGAR[sign]).trim().split(/\s+/);
  const digits = Math.max(...parts.map((part) => part.replaceAll(".", "").length));
  const values = parts.map(Fraction.of);
  const rest = values.slice(1).every((value) => value.against(ZERO) > 0 && value.against(ONE) < 0);
  if (digits > DIGITS || CLOCK.test(text) || !rest) unclear();
  return values.reduce((sum, value) => sum.plus(value), ZERO);
}
