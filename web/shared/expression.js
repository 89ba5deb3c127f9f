// Parser for arithmetic expressions in prose, a port of runtime/arithmetic/expression.py.

import { Fraction, ONE, ZERO } from "./fraction.js";
import { lex } from "./lexer.js";
import { brackets, expandVulgar, kinds, limits, words as tables } from "./tables.js";
import { ambiguous, AmbiguityError, isArithmetic, isVariable, parseResultUnits, parseUnits } from "./units.js";
import { Quantity, union } from "./units.js";

const GROUP_DIGITS = 3; // that a separator of thousands is followed by
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
export function parseRightSide(text, start, end, bounded) {
  const lexemes = lex(text, start, end).slice(1);
  if (!bounded) lexemes.push({ ...lexemes.pop(), kind: "unknown" });
  const expression = parse(lexemes, true);
  if (!expression) return null;
  const rest = lexemes.slice(expression.lexemes.length);
  const value = expression.quantity;
  const noun = leading(rest, ({ kind, text }) => kind === "word" || text === "/");
  const words = noun.map(({ text }) => (text === "/" ? "per" : text.toLowerCase()));
  const units = parseResultUnits(words, rest[0].tight);
  if (!units || !isComplete(rest, value.units.size > 0)) return null;
  const quantity = value.with({ units: union(value.units, units[0]), per: union(value.per, units[1]) });
  return { ...expression, quantity };
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

/** Whether nothing before an expression belongs to it: the word before it must be a known one. */
function isIndependent(lexemes, first) {
  const before = lexemes.slice(0, first);
  if (before.at(-1).kind === "break") return !continues(before, lexemes[first]);
  const clause = leading([...before].reverse(), ({ kind }) => kind !== "break");
  if (clause.length === 1 && before.at(-1).text.toLowerCase() === "and") { // ", and 3 + 4"
    const line = leading(before.slice(0, -2).reverse(), ({ kind }) => kind !== "break");
    return !(calculates(line) || continues(before.slice(0, -1), lexemes[first]));
  }
  const words = leading(clause, ({ kind }) => kinds.words.includes(kind)).map(({ text }) => text.toLowerCase());
  const previous = before.at(-1 - words.length);
  const joined = ["open", "operator"].includes(previous.kind) && !(previous.text === "/" && previous.tight);
  const amount = words[0] === "of" && tables.amounts.has(words[1]);
  const skipped = amount ? union(tables.pronouns, ["a", "the"]) : tables.pronouns; // "gives us a total of"
  const word = words.slice(amount ? 2 : 0).find((each) => !skipped.has(each)) ?? "";
  if (joined || tables.statements.has(word)) return !joined;
  if (clause.length === first || calculates(clause)) return false;
  if (amount) return true;
  const parts = words.flatMap((one) => one.split("-"));
  const hasNumber = kinds.operand_ends.includes(previous.kind) || parts.some((part) => tables.cardinals.has(part));
  const isKnown = tables.introducers.has(word) || tables.statements.has(word);
  return isKnown && !(tables.prepositions.has(word) && hasNumber);
}

function calculates(clause) {
  return clause.some(({ kind, text }) => kind === "percent" || isArithmetic(text, tables.functions));
}

/** Whether an expression continues the text before the break that it follows. */
function continues(before, first) {
  const mark = before.at(-1).text.trim().slice(-1);
  if (mark === "-" || mark === "\u2013") return true; // a bullet, or a sign
  const last = before.findLast(({ kind }) => kind !== "break");
  if (!last) return false;
  const separator = before.at(-1).text[0];
  const [separated, ended] = [[":", "\n"].includes(separator), [".", "!", "?"].includes(separator)];
  const others = separated ? [] : [tables.functions, tables.cardinals];
  const operands = ended ? [tables.cardinals] : [tables.functions, tables.cardinals];
  const stranded = (separated || ended) && isStranded(last, before, operands);
  const preposition = tables.prepositions.has(last.text.toLowerCase()) && !stranded;
  if (["operator", "open"].includes(last.kind) || isArithmetic(last.text, ...others) || preposition) return true;
  const isOperand = kinds.operand_ends.includes(last.kind);
  if (mark === "*") return isOperand; // "12\n* 5": the mark is an operator
  if (mark !== "," || !isOperand) return false;
  const ofSums = [...kinds.operand_ends, "operator"];
  const afterSign = before[0].start > 0 && before.slice(1, -1).every(({ kind }) => ofSums.includes(kind));
  return !afterSign || first.text.length === GROUP_DIGITS; // "the sum of 5, 3 + 4", "in 14, 400 / 80"
}

/** Whether a word ends a sentence without calculation: "what she began with: 3 + 4". */
function isStranded({ text: last }, before, others) {
  const words = before.slice(0, before.findLastIndex(({ kind }) => kind !== "break") + 1).reverse();
  const sentence = leading(words, ({ kind, text }) => kind !== "break" || text === ",");
  const isPlain = ({ kind, text }) => text === "," || (kind === "word" && !isArithmetic(text, ...others));
  return tables.introducers.has(last.toLowerCase()) && sentence.every(isPlain);
}

/**
 * Whether the clause after a result has no more arithmetic. A number after a unit and a preposition of place is none:
 * "15 apples in 4 boxes".
 */
function isComplete(rest, counted) {
  let [inPlace, last, beforeLast] = [false, {}, {}];
  for (const [index, lexeme] of rest.entries()) {
    const [word, startsOperand] = [lexeme.text.toLowerCase(), kinds.operand_starts.includes(lexeme.kind)];
    if (lexeme.kind === "word") {
      if (tables.clauses.has(word)) return true;
      inPlace ||= tables.places.has(word) && (counted || last.kind === "word");
      inPlace &&= !tables.connectives.has(word);
      if (isArithmetic(word, tables.wholes, inPlace ? new Set() : tables.cardinals) || isVariable(word)) return false;
    } else if (kinds.ends.includes(lexeme.kind) && word !== ",") {
      return last.kind !== "number" && !tables.prepositions.has(last.text); // "3 people in 4"
    } else if ([last.text, beforeLast.text].includes(",") && startsOperand) {
      const operator = rest.slice(index, index + 3).find(({ kind }) => kind === "operator");
      const isSum = Boolean(operator) && operator.text !== "/";
      return isSum && [",", "and"].includes(last.text) && word.length !== GROUP_DIGITS;
    } else if (!["break", "open"].includes(lexeme.kind) && word !== "/" && !(inPlace && startsOperand)) return false;
    [beforeLast, last] = [last, lexeme];
  }
  return false;
}

/** The elements before the first one that does not hold. */
function leading(elements, holds) {
  const end = elements.findIndex((element) => !holds(element));
  return end < 0 ? elements : elements.slice(0, end);
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
   * @param {boolean} beforeProse whether prose may follow; words without an operator after them are then left
   *   out.
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
    const single = !value.units.size && !value.per.size && !value.percent && value.value.equals(ONE);
    const [units, per] = this.units(Boolean(currency || value.units.size), single);
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
  units(hasUnit, single) {
    const start = this.position;
    let abbreviated = this.next.kind === "word" && this.next.tight;
    let words = this.words();
    const divisible = hasUnit || (this.beforeProse && this.second.text.length > 1);
    while ((words.length || divisible) && this.next.text === "/" && this.second.kind === "word") {
      this.position++;
      words = [...words, "per", ...this.words()];
    }
    if (this.beforeProse && this.next.kind !== "operator") {
      [this.position, words, abbreviated] = [start, [], false]; // see parseResultUnits()
    }
    return parseUnits(words, abbreviated, single);
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
export function parseMixedNumber(text) {
  const plain = text.replaceAll(",", "").replaceAll("and", " ");
  const parts = expandVulgar(plain).trim().split(/\s+/);
  const digits = Math.max(...parts.map((part) => part.replaceAll(".", "").length));
  const values = parts.map(Fraction.parse);
  const properFractions = values.slice(1).every((value) => value.compare(ZERO) > 0 && value.compare(ONE) < 0);
  if (digits > limits.digits || LEADING_ZERO.test(text) || !properFractions) ambiguous();
  return values.reduce((sum, value) => sum.plus(value), ZERO);
}
