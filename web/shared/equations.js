// Equations in prose, a port of runtime/arithmetic/equations.py.

import { parseSide, PERCENT, stem } from "./expression.js";
import { formatNumber } from "./final_answer.js";
import { Fraction, HALF, HUNDRED, ONE, ZERO } from "./fraction.js";
import { lex, numberValue } from "./lexer.js";
import { currencies, limits, prose, trimEnd, values, words as tables } from "./tables.js";

const [BOUNDARY, MARKER] = [prose("boundary", "g"), prose("marker", "y")];
const BOUNDARY_CHARS = 8; // before the white space in it, and after it
const THINGS = new Set(Array.from(tables.things, stem));
const MEASURES = Array.from([...tables.measures, ...tables.symbols], stem);
const UNITS = new Set([...THINGS, ...MEASURES, ...currencies, PERCENT]);
const OPERAND_STARTS = ["number", "currency", "open", "fraction", "operator"];
const OPEN_ENDS = ["operator", "relation", "open", "comma", "currency", "fraction", "comparison", "unknown"];

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
  #before = []; // lexemes of the line before, if it may go on
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
    let lexemes = isShort ? lex(text, MARKER.lastIndex) : [];
    this.#otherBase ||= hasWord(lexemes, "bases");
    if (this.#otherBase) lexemes = [];
    const [chains, unread, last] = new Sentence(this.#before, lexemes, this.#counted).read();
    if (lexemes.length) this.#before = last === lexemes.length || isEnded(lexemes, text) ? [] : lexemes;
    this.#offset += countCharacters(text);
    this.unread += lexemes.length ? unread : text.split("=").length - 1; // not decimal, or too long
    return chains.map((chain) => toStep(chain, text, offset));
  }
}

/** The step of a text, which begins so many characters after the whole one. */
function toStep({ left, claimed, ok, sign }, text, offset) {
  const [{ start }, scale] = [left.lexemes[0], claimed.quantity.unit === PERCENT ? HUNDRED : ONE];
  const place = (position) => offset + countCharacters(text.slice(0, position));
  return {
    expression: text.slice(start, sign).replace(/[ \t\n\\&]+$/, ""),
    claimed: formatNumber(claimed.quantity.value.times(scale)),
    computed: formatNumber(left.quantity.value.times(scale)),
    ok,
    start: place(start),
    result: place(claimed.lexemes[0].start),
    end: place(claimed.lexemes.findLast(({ kind }) => kind !== "word").end),
  };
}

/** A sentence, or a line; see Sentence in equations.py. */
class Sentence {
  constructor(before, lexemes, counted) {
    Object.assign(this, { open: before, lexemes, counted });
  }

  /** What stands before an index: an open line, if that is the first. */
  before(index) {
    return index ? this.lexemes.slice(0, index) : this.open;
  }

  /** The equations, how many relation signs belong to none, and the index after the last. */
  read() {
    const signs = this.lexemes.filter(({ kind }) => kind === "relation" || kind === "comparison").length;
    let [unread, index, last] = [hasNumber(this.lexemes) ? signs : 0, 0, 0];
    const chains = [];
    while (unread && index < this.lexemes.length) {
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
    const before = this.before(index);
    if (!before.length) return true;
    const [context, last] = [[...this.open, ...this.lexemes.slice(0, index)], before.at(-1)];
    const [words, alone] = [lastWords(context), context.length <= 2 || context.at(-2).kind === "comma"];
    if (alone && words.length === 1 && tables.connectives.has(words[0])) return ["word", "comma"].includes(last.kind); // "So,"
    if (last.kind === "stop") return last.text === ":" && isLabel(context.slice(0, -1), index === 0);
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

  /** Whether a label may be part of what is calculated: "Pythagoras:". */
  isVague(start) {
    const before = this.before(start);
    return before.at(-1)?.kind === "stop" && (start > 0 || hasNumber(before));
  }

  /** How many signs before an index only name it: 2 in "total = price * count = 3 * 4"; 0 if one does not. */
  names(index) {
    const before = since(since(this.lexemes.slice(0, index), "stop"), "comma");
    if (before.at(-1)?.kind !== "relation" || before[0].kind === "relation" || hasNumber(before)) return 0;
    const isName = before.every(({ kind }) => ["word", "relation", "operator"].includes(kind));
    return isName ? before.filter(({ kind }) => kind === "relation").length : 0;
  }

  /** The index after an equation's last side and what may follow it; null if more belongs to it. */
  end(index, start) {
    const after = this.lexemes.slice(index);
    const words = leadingWords(after);
    if (words.length && !tables.suffixes.has(words.join("_"))) return null;
    const [rest, then] = after.slice(words.length);
    let ends = !then && (!rest || [".", ";"].includes(rest.text));
    if (start && this.lexemes[start - 1].kind === "open") {
      ends = rest?.kind === "close" && (!then || ["stop", "comma"].includes(then.kind));
    } else if (rest?.kind === "comma") {
      ends = then?.kind === "word" && tables.connectives.has(then.text.toLowerCase());
    }
    return ends ? index + words.length : null;
  }

  /** Whether two sides are equal; null if that is not certain. */
  verdict(left, sign, right) {
    const [{ value, unit }, { value: claimed, unit: noun }] = [left.quantity, right.quantity];
    const isKnown = UNITS.has(noun) || this.counted.has(noun);
    if (noun && unit !== noun && (unit || !isKnown || /^[a-z]$/i.test(noun))) return null; // "7 m" may be 7 million
    const places = (right.number.text.split(".")[1] ?? "").length + (noun === PERCENT ? 2 : 0);
    const distance = value.plus(claimed.negated()).abs();
    const off = distance.times(new Fraction(10n ** BigInt(places))); // in units of the last place
    const isResult = right.operators === "";
    if (value.equals(claimed) || (sign.text !== "=" && isResult && off.compare(HALF) <= 0)) return true;
    const isRange = (value.compare(ZERO) < 0 && claimed.compare(ZERO) > 0) || (value.plus(ONE).equals(claimed) && unit !== noun);
    const doubtful =
      sign.text !== "=" ||
      !(THINGS.has(noun) || (unit === noun && (!noun || isKnown))) ||
      left.doubtful ||
      right.doubtful ||
      (isResult ? off.compare(ONE) < 0 : numberValue(right.number).equals(value)) || // rounded; "3 * 4 = 12 + 5"
      claimed.equals(value.times(HUNDRED)) || // in percent?
      value.equals(claimed.times(HUNDRED)) ||
      (isRange && left.operators.includes("-")); // "10 - 20 = 11 pages"
    return doubtful ? null : false;
  }
}

/** Whether a parenthesis interrupts a sentence: "He has 18 eggs (12 + 6 = 18).". */
function isAside(before) {
  const [opening, clause] = [before.at(-1), since(before.slice(0, -1), "stop")];
  const words = lastWords(before.slice(0, -1));
  if (opening.text !== "(" || opening.tight || !words.length || tables.parts.has(words[0])) return false;
  return hasWord(clause, "verbs", "links");
}

/** Whether an expression follows a verb, or the word that begins a clause. */
function introduces(before, [word, previous = ""]) {
  if (tables.parts.has(previous) || isNumberWord(previous)) return false; // "minus the cost 3 + 4"
  return (tables.links.has(word) && !hasNumber(since(before, "stop"))) || tables.verbs.has(word) || tables.clauses.has(word);
}

/** Whether what ends in a colon only names the expression after it. */
function isLabel(before, ownLine) {
  const [word] = lastWords(before).filter((word) => !tables.links.has(word)); // "the average is:"
  return (ownLine || (word !== undefined && !hasNumber(since(before, "stop")))) && !tables.parts.has(word);
}

/** The words at the end, but for a comma or parenthesis after them; the last is the first. */
function lastWords(lexemes) {
  const end = lexemes.length - (["comma", "close"].includes(lexemes.at(-1)?.kind) ? 1 : 0);
  return leadingWords(lexemes.slice(0, end).reverse());
}

/** The words before any other lexeme, in lower case. */
function leadingWords(lexemes) {
  const end = lexemes.findIndex(({ kind }) => kind !== "word");
  return (end < 0 ? lexemes : lexemes.slice(0, end)).map(({ text }) => text.toLowerCase());
}

/** The lexemes after the last one of a kind. */
const since = (lexemes, wanted) => lexemes.slice(lexemes.findLastIndex(({ kind }) => kind === wanted) + 1);

/** Whether nothing of a line belongs to the next one. */
function isEnded(lexemes, text) {
  const [last, end] = [lexemes.findLast(({ kind }) => kind !== "stop"), lexemes.at(-1)];
  if (!last || OPEN_ENDS.includes(last.kind) || tables.parts.has(last.text.toLowerCase())) return false;
  if (end.kind === "stop") return [".", "!", "?", ";"].includes(end.text);
  const isBlock = text.slice(trimEnd(text).length).split("\n").length > 2; // a blank line follows
  return isBlock && !(last.kind === "word" && hasNumber(lexemes));
}

/** Stems of the words that stand with a number: "12 eggs", "twelve red eggs". */
function counted(lexemes) {
  const near = lexemes.flatMap((one, n) => (hasNumber([one]) ? leadingWords(lexemes.slice(n + 1, n + 3)) : []));
  return new Set(near.filter((word) => !isNumberWord(word)).map(stem));
}

const isNumberWord = (word) => tables.cardinals.has(word) || values.has(word);

const hasWord = (lexemes, ...names) => lexemes.some(({ text }) => names.some((name) => tables[name].has(text.toLowerCase())));

const hasNumber = (lexemes) =>
  lexemes.some(({ kind, text }) => kind === "number" || text.toLowerCase().split("-").some(isNumberWord));

const countCharacters = (text) => Array.from(text).length;
