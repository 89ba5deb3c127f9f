// Equations in prose, a port of runtime/arithmetic/equations.py.

import { commonUnit, parseMixedNumber, parseSide } from "./expression.js";
import { formatNumber } from "./final_answer.js";
import { Fraction, HALF, HUNDRED, ONE } from "./fraction.js";
import { lex } from "./lexer.js";
import { currencies, limits, prose, trimEnd, values, words as tables } from "./tables.js";

const [BOUNDARY, MARKER] = [prose("boundary", "g"), prose("marker", "y")];
const BOUNDARY_CHARS = 8; // before the white space in it, and after it
const SUFFIXES = [...tables.suffixes].map((suffix) => suffix.split("_"));
const OPERAND_STARTS = ["number", "currency", "open", "fraction", "operator"];
const OPEN_ENDS = ["operator", "relation", "open", "comma", "currency", "fraction", "comparison", "unknown"];
const STOPS = [".", "!", "?", ";"];
const OPENER = 2; // lexemes of "So," and "Step 3"
const NEAR = 2; // words after a number that it may count

/**
 * Check every equation of a text that the grammar reads, in order.
 *
 * @param {string} text
 * @param {string} [question] what was asked, with all that was said before.
 * @returns {{steps: Array<{expression: string, claimed: string, computed: string, ok: boolean, start: number,
 *   result: number, end: number}>, unread: number}} see Reading in equations.py; positions count characters.
 */
export function readEquations(text, question = "") {
  const stream = new StepStream(question);
  return { steps: [...stream.feed(text), ...stream.finish()], unread: stream.unread };
}

/** Finds the equations in pieces of a text; see StepStream in equations.py. */
export class StepStream {
  #counted;
  #otherBase;
  #carried = []; // lexemes of the line before, if it may go on
  #text = "";
  #offset = 0;
  #searched = 0;
  unread = 0;

  constructor(question = "") {
    const lexemes = lex(question);
    this.#counted = counted(lexemes);
    this.#otherBase = hasWord(lexemes, "bases");
  }

  /** Add text; the equations that it completes, in order. */
  feed(piece) {
    this.#text += piece;
    const steps = [];
    let start = 0;
    for (;;) {
      BOUNDARY.lastIndex = Math.max(start, this.#searched);
      if (!BOUNDARY.test(this.#text)) break;
      steps.push(...this.#read(this.#text.slice(start, BOUNDARY.lastIndex)));
      start = this.#searched = BOUNDARY.lastIndex;
    }
    this.#text = this.#text.slice(start);
    const before = trimEnd(this.#text.slice(0, -BOUNDARY_CHARS)); // a boundary may begin in it, and end after the text
    this.#searched = Math.max(before.length - BOUNDARY_CHARS, 0);
    return steps;
  }

  /** End the text; its last equations. */
  finish() {
    return this.#read(this.#text);
  }

  #read(text) {
    MARKER.lastIndex = 0;
    MARKER.test(text);
    const [isShort, offset] = [countCharacters(text) <= limits.sentence, this.#offset];
    const own = isShort ? lex(text, MARKER.lastIndex) : [];
    this.#otherBase ||= hasWord(own, "bases");
    const isRead = isShort && !this.#otherBase;
    const sentence = new Sentence([...this.#carried, ...own], this.#carried.length, this.#counted, isRead);
    const [chains, unread, last] = sentence.read();
    this.#carried = last === sentence.lexemes.length || isEnded(own, text) ? [] : own;
    this.#offset += countCharacters(text);
    this.unread += own.length ? unread : text.split("=").length - 1; // too long
    return chains.map((chain) => toStep(chain, text, offset));
  }
}

/** The step of a text, which begins so many characters after the whole one. */
function toStep({ left, claimed, ok, sign }, text, offset) {
  const scale = claimed.quantity.percent ? HUNDRED : ONE;
  const place = (position) => offset + countCharacters(text.slice(0, position));
  return {
    expression: text.slice(left.start, sign).replace(/[ \t\n\\&]+$/, ""),
    claimed: formatNumber(claimed.quantity.value.times(scale)),
    computed: formatNumber(left.quantity.value.times(scale)),
    ok,
    start: place(left.start),
    result: place(claimed.start),
    end: place(claimed.end),
  };
}

/** A sentence, or a line; see Sentence in equations.py. */
class Sentence {
  constructor(lexemes, first, counted, isRead) {
    Object.assign(this, { lexemes, first, counted, isRead });
  }

  /** The equations, how many relation signs belong to none, and the index after the last. */
  read() {
    const own = this.lexemes.slice(this.first);
    const signs = own.filter(({ kind }) => kind === "relation" || kind === "comparison").length;
    let [unread, index, last] = [hasNumber(own) ? signs : 0, this.first, 0];
    const chains = [];
    while (unread && this.isRead && index < this.lexemes.length) {
      const found = this.begins(index) ? this.chain(index) : null;
      if (found) {
        if (found.chain) chains.push(found.chain);
        unread -= found.signs;
        index = last = found.end;
      } else index++;
    }
    return [chains, unread, last];
  }

  /** Whether an expression may begin at an index: nothing before it belongs to it. */
  begins(index) {
    if (!OPERAND_STARTS.includes(this.lexemes[index].kind)) return false;
    const before = this.lexemes.slice(0, index);
    const [words, last] = [lastWords(before), before.at(-1)];
    const alone = index <= OPENER || before.at(-2).kind === "comma";
    const opens = alone && words.length === 1 && tables.connectives.has(words[0]);
    if (!last || (opens && ["word", "comma"].includes(last.kind))) return true;
    if (opens) return false;
    if (last.kind === "stop") return last.text === ":" && isLabel(before.slice(0, -1), index === this.first);
    if (last.kind === "word") return introduces(before, words);
    return this.names(index) > 0 || isAside(before);
  }

  /** The equation that begins at an index, null for a definition; with its signs and end. Null if it is none. */
  chain(start) {
    const [sides, signs] = [[], []];
    let [index, parsed] = [start, null];
    while ((parsed = parseSide(this.lexemes, index))) {
      sides.push(parsed[0]);
      index = parsed[1];
      if (this.lexemes[index]?.kind !== "relation") break;
      signs.push(this.lexemes[index++]);
    }
    const [end, names] = [parsed ? this.end(index, start) : null, this.names(start)];
    if (end === null || !(signs.length ? sides[0].operators.length : names)) return null;
    if (!signs.length) return { chain: null, signs: names, end };
    const verdicts = signs.map((sign, n) => this.verdict(sides[n], sign, sides[n + 1]));
    if (verdicts.includes(null) || (verdicts.includes(false) && this.isVague(start))) return null;
    const ok = !verdicts.includes(false);
    const claimed = ok ? sides.at(-1) : sides[verdicts.indexOf(false) + 1];
    return { chain: { left: sides[0], claimed, ok, sign: signs[0].start }, signs: names + signs.length, end };
  }

  /** Whether a label may be part of what is calculated: "Pythagoras:", "Add this to 20:", but not "Step 2:". */
  isVague(start) {
    const before = this.lexemes.slice(0, start);
    if (before.at(-1)?.kind !== "stop") return false;
    const label = since(before.slice(0, -1), "stop");
    return !isStep(label) && (start > this.first || hasNumber(label));
  }

  /** How many signs before an index only name it: 2 in "total = price * count = 3 * 4"; 0 if one does not. */
  names(index) {
    const before = since(since(this.lexemes.slice(this.first, index), "stop"), "comma");
    if (before.at(-1)?.kind !== "relation" || before[0].kind === "relation" || hasNumber(before)) return 0;
    const isName = before.every(({ kind }) => ["word", "relation", "operator"].includes(kind));
    return isName ? before.filter(({ kind }) => kind === "relation").length : 0;
  }

  /** The index after an equation's last side and what may follow it; null if more belongs to it. */
  end(index, start) {
    const after = this.lexemes.slice(index);
    const words = leading(after, ({ kind }) => kind === "word").map(({ text }) => text.toLowerCase());
    const suffix = SUFFIXES.find((some) => some.every((word, n) => words[n] === word)) ?? [];
    const [rest, then] = after.slice(suffix.length);
    let ends = !rest || (rest.kind === "stop" && (!then || then.kind === "close") && [".", ":", ";"].includes(rest.text));
    if (start && this.lexemes[start - 1].kind === "open") {
      ends = rest?.kind === "close" && (!then || ["stop", "comma"].includes(then.kind));
    } else if (rest?.kind === "comma") {
      ends = then?.kind === "word" && tables.connectives.has(then.text.toLowerCase());
    }
    return ends ? index + suffix.length + (rest ? 1 : 0) : null;
  }

  /** Whether two sides are equal; null if that is not certain. */
  verdict(left, sign, right) {
    const [unit, noun] = [commonUnit(left.quantity, right.quantity), right.quantity.unit];
    const isKnown = this.counted.has(noun) || (isUnit(noun) && !(tables.symbols.has(noun) && noun.length === 1));
    if (unit === null && noun && (left.quantity.unit || !isKnown)) return null;
    const [value, claimed] = [left.quantity.value, right.quantity.value];
    if (value.equals(claimed) || (sign.text !== "=" && isRounded(value, right))) return true;
    const certain = unit === null ? tables.things.has(noun) : !unit || isUnit(unit) || this.counted.has(unit);
    const running = right.operators.length > 0 && parseMixedNumber(right.number).equals(value); // "3 * 4 = 12 + 5"
    const doubtful = left.doubtful || right.doubtful || running || mayBe(left, right);
    return certain && sign.text === "=" && !doubtful ? false : null;
  }
}

const isUnit = (noun) => currencies.has(noun) || ["things", "measures", "symbols"].some((name) => tables[name].has(noun));

/** Whether a parenthesis interrupts a sentence: "He has 18 eggs (12 + 6 = 18).". */
function isAside(before) {
  const [opening, clause] = [before.at(-1), since(before.slice(0, -1), "stop")];
  const words = lastWords(before.slice(0, -1));
  if (opening.text !== "(" || opening.tight || !words.length || tables.parts.has(words[0])) return false;
  return hasWord(clause, "verbs") || hasWord(clause, "links");
}

/** Whether an expression follows a verb, or the word that begins a clause. */
function introduces(before, [word, previous = ""]) {
  if (tables.parts.has(previous) || isNumberWord(previous)) return false; // "minus the cost 3 + 4"
  return (tables.links.has(word) && !hasNumber(since(before, "stop"))) || tables.verbs.has(word) || tables.clauses.has(word);
}

/** Whether what ends in a colon only names the expression after it. */
function isLabel(before, ownLine) {
  const clause = since(before, "stop");
  const [word] = lastWords(before).filter((word) => !tables.links.has(word)); // "the average is:"
  if (isStep(clause)) return true;
  return (ownLine || (word !== undefined && !hasNumber(clause))) && !tables.parts.has(word);
}

const isStep = (label) => label.length === OPENER && label[0].text.toLowerCase() === "step";

/** The words at the end, but for a comma or parenthesis after them; the last is the first. */
function lastWords(lexemes) {
  const end = lexemes.length - (["comma", "close"].includes(lexemes.at(-1)?.kind) ? 1 : 0);
  const found = leading(lexemes.slice(0, end).reverse(), ({ kind }) => kind === "word");
  return found.map(({ text }) => text.toLowerCase());
}

/** The lexemes after the last one of a kind. */
const since = (lexemes, wanted) => lexemes.slice(lexemes.findLastIndex(({ kind }) => kind === wanted) + 1);

/** The elements before the first one that does not hold. */
function leading(elements, holds) {
  const end = elements.findIndex((element) => !holds(element));
  return end < 0 ? elements : elements.slice(0, end);
}

/** Whether nothing of a line belongs to the next one. */
function isEnded(lexemes, text) {
  const inner = lexemes.slice(0, lexemes.findLastIndex(({ kind }) => kind !== "stop") + 1);
  const [last, stop] = [inner.at(-1), lexemes[inner.length]?.text];
  if (!last || OPEN_ENDS.includes(last.kind) || tables.parts.has(last.text.toLowerCase())) return !lexemes.length;
  if (stop) return STOPS.includes(stop);
  const isBlock = text.slice(trimEnd(text).length).split("\n").length > 2; // a blank line follows
  return isBlock && !(last.kind === "word" && hasNumber(inner));
}

/** The words that stand with a number: "12 eggs", "twelve red eggs". */
function counted(lexemes) {
  const found = new Set();
  let near = 0;
  for (const { kind, text } of lexemes) {
    const word = text.toLowerCase();
    if (kind === "word" && near > 0 && !isNumberWord(word)) found.add(word);
    near = kind === "word" ? near - 1 : 0;
    if (kind === "number" || isNumberWord(word)) near = NEAR;
  }
  return found;
}

const isNumberWord = (word) => tables.cardinals.has(word) || values.has(word);

const hasWord = (lexemes, table) => lexemes.some(({ kind, text }) => kind === "word" && tables[table].has(text.toLowerCase()));

const hasNumber = (lexemes) =>
  lexemes.some(({ kind, text }) => kind === "number" || text.toLowerCase().split("-").some(isNumberWord));

const decimals = ({ number }) => new Fraction(10n ** BigInt((number.split(".")[1] ?? "").length));

/** Whether a right side is a value rounded to its decimal places, half up or half to even. */
function isRounded(value, right) {
  const [scale, claimed] = [decimals(right), right.quantity.value];
  const scaled = value.abs().times(scale);
  const isEqual = [scaled.round(), scaled.plus(HALF).floor()].some((one) => claimed.abs().times(scale).equals(new Fraction(one)));
  return !right.operators.length && claimed.times(value).numerator >= 0n && isEqual;
}

/** Whether a value may be meant by another: rounded, in percent, or as a range. */
function mayBe(left, right) {
  const [value, claimed] = [left.quantity.value, right.quantity.value];
  const difference = value.plus(claimed.negated()).abs().times(decimals(right));
  const isNear = !right.operators.length && difference.compare(ONE) < 0;
  const isPercent = claimed.equals(value.times(HUNDRED)) || claimed.equals(value.dividedBy(HUNDRED));
  const isNext = value.plus(ONE).equals(claimed) && right.quantity.unit !== left.quantity.unit;
  const counts = (value.numerator < 0n && claimed.numerator > 0n) || isNext;
  return isNear || isPercent || (counts && left.operators.includes("-"));
}

const countCharacters = (text) => Array.from(text).length;
