// Exact quantities with units, a port of runtime/arithmetic/units.py.

import { HUNDRED, ONE } from "./fraction.js";
import { currencies, limits, prose, words as tables } from "./tables.js";

const MAGNITUDE_LIMIT = 10n ** BigInt(limits.magnitude_digits); // of a numerator or denominator
const DIGIT = prose("digit");
const { cardinals, connectives, clauses, links, trailing } = tables;
const NO_UNITS = difference(union(cardinals, union(connectives, clauses)), difference(links, connectives));

/** An expression has no value, or could mean more than one thing. */
export class AmbiguityError extends Error {}

export function ambiguous() {
  throw new AmbiguityError();
}

/** A number with units; see Quantity in runtime/arithmetic/units.py. */
export class Quantity {
  /**
   * @param {Fraction} value
   * @param {Set<string>} [units] what it counts: stems of nouns, symbols of currencies.
   * @param {Set<string>} [per] the units that it is divided by.
   * @param {boolean} [percent] whether the number is in percent.
   */
  constructor(value, units = new Set(), per = new Set(), percent = false) {
    if (value.reaches(MAGNITUDE_LIMIT)) ambiguous();
    Object.assign(this, { value, units, per, percent });
  }

  with(changes) {
    const { value, units, per, percent } = { ...this, ...changes };
    return new Quantity(value, units, per, percent);
  }

  negated() {
    return this.with({ value: this.value.negated() });
  }

  plus(other) {
    for (const [units, others] of [[this.units, other.units], [this.per, other.per]]) {
      if (units.size && others.size && !intersect(units, others)) ambiguous();
    }
    if (this.percent !== other.percent) return this.#fraction().plus(other.#fraction());
    const [units, per] = [either(this.units, other.units), either(this.per, other.per)];
    return new Quantity(this.value.plus(other.value), units, per, this.percent);
  }

  times(other) {
    let [value, percent] = [this.value.times(other.value), this.percent && other.percent];
    const isMoney = intersect(this.units, currencies);
    if (other.percent && other.value.equals(HUNDRED) && !this.percent && !isMoney) {
      if (this.value.denominator === 1n && !this.per.size) ambiguous(); // "80 * 100%": 80, or 8000%?
      percent = true;
    } else if (this.percent || other.percent) value = value.dividedBy(HUNDRED);
    const [units, per] = cancel(union(this.units, other.units), union(this.per, other.per));
    return new Quantity(value, units, per, percent);
  }

  dividedBy(other) {
    if (other.value.isZero()) ambiguous();
    let value = this.value.dividedBy(other.value);
    if (other.percent && !this.percent) value = value.times(HUNDRED);
    const [units, per] = cancel(union(this.units, other.per), union(this.per, other.units));
    return new Quantity(value, units, per, this.percent && !other.percent);
  }

  power(exponent) {
    if (this.units.size || this.percent) ambiguous();
    return new Quantity(this.value.power(exponent));
  }

  /** Whether a result of this value has its units; either may leave them out. */
  agreesWith(result) {
    if (this.per.size && result.per.size && !equal(this.per, result.per)) return false;
    const [money, resultMoney] = [this.units, result.units].map((units) => intersection(units, currencies));
    if (!(money.size || resultMoney.size)) return !result.units.size || !difference(this.units, result.units).size;
    return equal(money, resultMoney) || !(this.units.size && result.units.size);
  }

  /** Convert a term next to a percentage: "1 - 20%" is 0.8, but "100 - 20%" may mean 99.8 or 80. */
  #fraction() {
    if (this.percent) return new Quantity(this.value.dividedBy(HUNDRED), this.units, this.per);
    if (!this.value.equals(ONE) || this.units.size) ambiguous();
    return this;
  }
}

/**
 * Parse the words after a number: "red apples a day" counts apples per day.
 *
 * @param {string[]} words in lower case.
 * @param {boolean} abbreviated whether the first word follows the number without a space.
 * @param {boolean} single whether the number is 1: its noun needs no plural.
 * @returns {[Set<string>, Set<string>]} the fields `units` and `per` of a Quantity.
 * @throws {AmbiguityError} the words may be variables, or part of the number.
 */
export function parseUnits(words, abbreviated, single) {
  if (["of", "the", "a"].includes(words[0]) || words.length > limits.unit_words) ambiguous();
  if (abbreviated && !tables.abbreviations.has(words[0])) ambiguous();
  if (words.some((word) => isVariable(word) || isArithmetic(word, NO_UNITS))) ambiguous();
  if (words[0] === "in" && words.length === 1) return [new Set(words), new Set()]; // in "5 in the box" it is a link
  const counted = until(words, [links]).filter((word) => !trailing.has(word)).slice(-1);
  if (!single && !counted.every(isNoun)) ambiguous();
  return [new Set(counted.map(stem)), divisors(words)];
}

/**
 * Parse the words after a result, where the clause goes on: "red apples that he eats" may count apples.
 * See parseUnits(), but the units have all words of the noun. Null if it may be no noun.
 */
export function parseResultUnits(words, abbreviated) {
  if (words[0] === "in" && words.length === 1) return [new Set(words), new Set()];
  const noun = until(words, [links, trailing, connectives, clauses]);
  if (words.length && abbreviated && !tables.abbreviations.has(words[0])) return null;
  if (!noun.slice(-1).every(isNoun)) return null;
  return [new Set(noun.map(stem)), divisors(words)];
}

/** Whether a word, or a part of a compound, calculates or negates, or is one of the others. */
export function isArithmetic(words, ...others) {
  const parts = words.toLowerCase().split("-");
  return parts.some((word) => [tables.arithmetic, ...others].some((table) => table.has(word)));
}

/** Whether a word may be a variable. */
export function isVariable(word) {
  return ([...word].length === 1 && !"ai".includes(word)) || word.includes("_") || DIGIT.test(word);
}

function isNoun(word) {
  if (tables.nouns.has(word) || tables.abbreviations.has(word)) return true;
  return word.endsWith("s") && !word.endsWith("ss");
}

function until(words, ends) {
  const end = words.findIndex((word) => ends.some((table) => table.has(word)));
  return end < 0 ? words : words.slice(0, end);
}

const divisors = (words) => new Set(words.filter((_, index) => index && tables.per.has(words[index - 1])).map(stem));

function stem(noun) {
  const bare = noun.replace(/s$/, "").replace(/e$/, "");
  return bare === "dollar" ? "$" : bare;
}

const intersection = (left, right) => new Set([...left].filter((item) => right.has(item)));
const equal = (left, right) => left.size === right.size && !difference(left, right).size;
const intersect = (left, right) => [...left].some((item) => right.has(item));
const either = (left, right) => (left.size ? left : right);
const cancel = (units, per) => [difference(units, per), difference(per, units)];

export function union(left, right) {
  return new Set([...left, ...right]);
}

function difference(left, right) {
  return new Set([...left].filter((item) => !right.has(item)));
}
