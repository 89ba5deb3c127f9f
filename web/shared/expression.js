// Parser for arithmetic expressions in prose, a port of runtime/arithmetic/expression.py.

import { Fraction, ONE, ZERO } from "./fraction.js";
import { lex } from "./lexer.js";
import { brackets, expandVulgar, kinds, limits, words as tables } from "./tables.js";
import { ambiguous, AmbiguityError, parseUnits, Quantity, union } from "./units.js";

const LEADING_ZERO = /^0[\p{Nd},]/u; // 0930, 007, or 0,500 with a decimal comma

/**
 * Parse the expression that ends at a position.
 *
 * @param {string} text result of blankMarkup().
 * @param {number} start
 * @param {number} end
 * @param {boolean} bounded whether the expression cannot begin before `start`.
 * @returns {?{quantity: Quantity, operators: string[], lexemes: object[]}} null if it may be part of a larger
 *   expression or mean something else.
 */
export function parseLeftSide(text, start, end, bounded) {
  const lexemes = lex(text, start, end, bounded);
  const first = expressionStart(lexemes);
  if (first === null || !isIndependent(lexemes, first)) return null;
  const expression = parse(lexemes.slice(first));
  return expression && expression.lexemes.length === lexemes.length - first - 1 ? expression : null;
}

/** Parse the expression that begins at a position; null if it may continue in the text after it. */
export function parseRightSide(text, start, end) {
  const lexemes = lex(text, start, end).slice(1);
  const expression = parse(lexemes, true);
  if (!expression) return null;
  const rest = lexemes.slice(expression.lexemes.length);
  if (hasSecondPart(expression.lexemes, rest)) return null;
  const after = rest[0].kind;
  const hasUnit = expression.lexemes.at(-1).kind === "word"; // a number after it is another expression
  return kinds.followers.includes(after) || (hasUnit && kinds.operand_starts.includes(after)) ? expression : null;
}

/** The text of the first lexeme of a kind; empty if there is none. */
export function firstOf(expression, kind) {
  return expression.lexemes.find((lexeme) => lexeme.kind === kind)?.text ?? "";
}

/** Find the last operand that follows a word, or what follows the last break if that begins an operand. */
function expressionStart(lexemes) {
  for (let index = lexemes.length - 2; index > 0; index--) {
    const [kind, previous] = [lexemes[index].kind, lexemes[index - 1].kind];
    if (previous === "break") {
      const negated = lexemes[index].text === "-" && lexemes[index + 1].tight;
      return kinds.operand_starts.includes(kind) || negated ? index : null;
    }
    if (kinds.words.includes(previous) && kinds.operand_starts.includes(kind)) return index;
  }
  return null;
}

/** Whether nothing before an expression belongs to it. */
function isIndependent(lexemes, first) {
  let index = first;
  while (kinds.words.includes(lexemes[index - 1]?.kind)) index--;
  const words = lexemes.slice(index, first).map((lexeme) => lexeme.text.toLowerCase());
  const previous = lexemes.at(index - 1);
  const opens = lexemes[first].kind === "open" && words.length > 0;
  if (opens && (lexemes[first].tight || kinds.operand_ends.includes(previous.kind))) return false; // "f(3) + 1"
  const last = words.findLast((word) => !tables.function_words.has(word)) ?? "";
  if (kinds.operand_ends.includes(previous.kind)) {
    if (tables.operator_words.has(last) || joins(words, lexemes.slice(first))) return false;
    if (isSecond(words, lexemes.slice(0, index))) return false;
  }
  const word = last.slice(last.lastIndexOf("-") + 1);
  if (tables.modifiers.has(word) || tables.labels.has(word.replace(/s$/, "")) || isVariable(word)) return false;
  if (previous.kind === "break") return !continues(lexemes.slice(0, index), lexemes[first]);
  return !["open", "operator"].includes(previous.kind) || (previous.text === "/" && previous.tight);
}

const isVariable = (word) => ([...word].length === 1 && word !== "i") || /[\p{Nd}_]/u.test(word);

/** Whether words make one quantity of two numbers: "3 boxes of 12", "2 hours 30 minutes". */
function joins(words, lexemes) {
  const adjacent = words.at(-1) === "and" || (words.length === 1 && !tables.connectives.has(words[0]));
  const hasUnit = lexemes.some((lexeme) => lexeme.kind === "word");
  return words.length <= 3 && (words.slice(-2).includes("of") || (adjacent && hasUnit));
}

/** Whether words make an expression the second operand: "multiply 12 by", "the sum of 12 and". */
function isSecond(words, [start, ...others]) {
  if (words.at(-1) !== "and") return tables.joiners.has(words.at(-1));
  const afterSign = start.kind === "break" && start.start > 0; // "3 * 4 = 12 and 5 * 2" has two equations
  return !afterSign || others.some(({ kind }) => ["operator", "break", ...kinds.words].includes(kind));
}

/** Whether a right side is only a part of the result: "3 hours 20 minutes", "3, remainder 2". */
function hasSecondPart(side, rest) {
  if (rest[0].kind === "open" || rest[0].text === ",") {
    const after = leadingWords(rest.slice(1));
    return after.includes("remainder") && ["remainder", "with"].includes(after[0]);
  }
  const words = leadingWords([...side].reverse()).reverse();
  if (words.at(-1) === "and") words.pop();
  const isUnit = words.length === 1 && !tables.connectives.has(words[0]) && !tables.links.has(words[0]);
  return isUnit && rest[0].kind === "number" && rest[1].kind === "word" && rest[2].kind !== "operator";
}

function leadingWords(lexemes) {
  const end = lexemes.findIndex(({ kind }) => kind !== "word");
  return lexemes.slice(0, end < 0 ? lexemes.length : end).map(({ text }) => text.toLowerCase());
}

/** Whether an expression continues the text before the break that ends the lexemes. */
function continues(lexemes, first) {
  const reversed = lexemes.slice(0, -1).reverse();
  const end = reversed.findIndex((lexeme) => lexeme.kind === "break");
  const line = end < 0 ? reversed : reversed.slice(0, end);
  const last = lexemes.findLast((lexeme) => lexeme.kind !== "break");
  if (last && ["operator", "open"].includes(last.kind)) return true;
  const mark = lexemes.at(-1).text.trim().slice(-1);
  if (mark === "," && line.length > 1 && line[0].kind === "number") {
    return line[0].text.length <= 3 && first.text.length === 3; // "in 14, 400 / 80"
  }
  const hasOperator = line.some((lexeme) => lexeme.kind === "operator");
  return hasOperator && ["-", "\u2013", "*"].includes(mark); // the mark is an operator, not a bullet
}

function parse(lexemes, beforeProse = false) {
  const parser = new ExpressionParser(lexemes, beforeProse);
  try {
    const quantity = parser.sum();
    return { quantity, operators: parser.operators, lexemes: lexemes.slice(0, parser.position) };
  } catch (failure) {
    if (failure instanceof AmbiguityError || failure instanceof RangeError) return null; // RangeError: by zero
    throw failure;
  }
}

/** Recursive-descent parser with one method per level of precedence. */
class ExpressionParser {
  /**
   * @param {object[]} lexemes the last has the kind "end".
   * @param {boolean} beforeProse whether prose may follow; then words without an operator after them need not be
   *   a unit.
   */
  constructor(lexemes, beforeProse) {
    Object.assign(this, { lexemes, beforeProse, position: 0, nesting: 0, operators: [] });
    this.spaced = lexemes.some((lexeme) => lexeme.kind === "operator" && !lexeme.tight);
  }

  get next() {
    return this.lexemes[this.position];
  }

  get second() {
    return this.lexemes[Math.min(this.position + 1, this.lexemes.length - 1)];
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
    if (lexeme) this.operators.push(lexeme.text);
    return lexeme;
  }

  sum() {
    let total = this.product();
    for (let operator; (operator = this.operator("+", "-")); ) {
      const term = this.product();
      const isMinus = operator.text === "-";
      const isNegative = total.value.compare(term.value) < 0;
      if (isMinus && operator.tight && this.spaced && isNegative) ambiguous(); // a range: "2-3 * 5"
      total = total.plus(isMinus ? term.negated() : term);
    }
    return total;
  }

  product() {
    let value = this.signed();
    let last = null;
    for (let operator; (operator = this.operator("*", "/", "of") ?? this.implicitProduct()); ) {
      const isProperFraction = value.value.compare(ZERO) > 0 && value.value.compare(ONE) < 0;
      const isShare = value.percent || (isProperFraction && !value.units.size);
      const isOf = operator.text === "of";
      if (isAmbiguous(last, operator) || (isOf && !isShare)) ambiguous(); // "2 of 3"
      const factor = this.signed();
      last = operator;
      value = operator.text === "/" ? value.dividedBy(factor) : value.times(factor);
      if (isOf && ["+", "-"].includes(this.next.text)) ambiguous(); // "20% of 85 + 15"
    }
    return value;
  }

  /** Return the parenthesis of "2(3 + 4)" without consuming it. */
  implicitProduct() {
    if (this.next.kind !== "open" || !this.next.tight) return null;
    if (!["number", "close"].includes(this.lexemes.at(this.position - 1).kind)) return null;
    this.operators.push("*");
    return this.next;
  }

  signed() {
    if (this.next.kind === "operator" && this.next.text === "-" && this.second.tight) {
      this.position++;
      return this.operand().negated();
    }
    return this.operand();
  }

  operand() {
    let currency = this.accept("currency");
    let value = this.primary();
    if (this.operator("^")) value = value.power(this.exponent());
    if (this.accept("percent")) value = value.with({ percent: true });
    currency ??= this.accept("currency");
    if (value.units.size && (currency || value.percent)) ambiguous();
    const [units, per] = this.units(Boolean(currency || value.units.size));
    const symbol = new Set(currency ? [currency.text.at(-1)] : []);
    return value.with({ units: union(union(value.units, units), symbol), per: union(value.per, per) });
  }

  primary() {
    const last = this.lexemes.at(this.position - 1);
    const number = this.accept("number");
    if (number && last.kind === "operator" && isTwoNumbers(last, number)) ambiguous();
    if (number) return new Quantity(parseMixedNumber(number.text));
    if (this.accept("fraction")) {
      const numerator = this.group("brace");
      this.operators.push("/");
      return numerator.dividedBy(this.group("brace"));
    }
    return this.group("open");
  }

  group(kind) {
    const opening = this.accept(kind);
    this.nesting++;
    if (!opening || !(opening.text in brackets) || this.nesting > limits.nesting) ambiguous();
    const value = this.sum();
    if (!this.accept(...brackets[opening.text])) ambiguous();
    this.nesting--;
    return value;
  }

  exponent() {
    const braced = this.accept("brace", "{");
    const number = this.accept("number");
    if (!number || !/^\d+$/.test(number.text) || BigInt(number.text) > limits.exponent) ambiguous();
    if (braced && !this.accept("brace", "}")) ambiguous();
    return Number(number.text);
  }

  /** Parse the unit after a number: "red apples", "miles/hour", or "/hour" if the number has a unit. */
  units(hasUnit) {
    const abbreviated = this.next.kind === "word" && this.next.tight;
    let words = this.words();
    const divisible = hasUnit || (this.beforeProse && this.second.text.length > 1);
    while ((words.length || divisible) && this.next.text === "/" && this.second.kind === "word") {
      this.position++;
      words = [...words, "per", ...this.words()];
    }
    if (this.beforeProse && this.next.kind !== "operator") {
      const near = words[0] === "and" ? words.slice(1, 3) : words.slice(0, 1); // "3 and a half"
      const isNumber = near.some((word) => tables.number_words.has(word));
      const hasRemainder = words.some((word) => tables.remainders.has(word));
      if (!abbreviated && !isNumber && !hasRemainder) words = [];
    }
    return parseUnits(words, abbreviated);
  }

  words() {
    const words = [];
    for (let word; (word = this.accept("word")); ) words.push(word.text.toLowerCase());
    return words;
  }
}

/** Whether an operator after a division may be meant to bind first: "8 / 1/2", "6/2(1 + 2)". */
function isAmbiguous(last, operator) {
  if (last === null || last.text !== "/" || !operator.tight) return false;
  return operator.kind === "open" || !last.tight;
}

/** Whether a mixed number may be two: "1/2 1/2" and "3 * 4 and 1/2" contain no 2 1/2 and 4 1/2. */
function isTwoNumbers(operator, number) {
  if (number.text.includes("and")) return true;
  return operator.text === "/" && number.tight && number.text.includes(" ");
}

/** Parse a number with an optional fraction: "12", "2 1/2", "2 and 1/2", "2½". */
function parseMixedNumber(text) {
  const plain = text.replaceAll(",", "").replaceAll("and", " ");
  const parts = expandVulgar(plain).trim().split(/\s+/);
  const digits = Math.max(...parts.map((part) => part.replaceAll(".", "").length));
  const values = parts.map(Fraction.parse);
  const properFractions = values.slice(1).every((value) => value.compare(ZERO) > 0 && value.compare(ONE) < 0);
  if (digits > limits.digits || LEADING_ZERO.test(text) || !properFractions) ambiguous();
  return values.reduce((sum, value) => sum.plus(value), ZERO);
}
