// Exact quantities with units, a port of runtime/arithmetic/units.py.

import { HUNDRED, ONE } from "./fraction.js";
import { currencies, limits, prose, words as tables } from "./tables.js";

const MAGNITUDE_LIMIT = 10n ** BigInt(limits.magnitude_digits); // of a numerator or denominator
const DIGIT = prose("digit");

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
 * @returns {[Set<string>, Set<string>]} the fields `units` and `per` of a Quantity.
 * @throws {AmbiguityError} the words may be variables, or part of the number.
 */
export function parseUnits(words, abbreviated) {
  const first = words[0];
  if (first === "of" || first === "the" || words.length > limits.unit_words) ambiguous();
  if (abbreviated && !tables.abbreviations.has(first)) ambiguous();
  if (words.some((word, index) => !(index && word === "a") && isNoUnit(word))) ambiguous();
  if (first === "in" && words.length === 1) return [new Set(words), new Set()]; // in "5 in the box" it is a link
  const link = words.findIndex((word) => tables.links.has(word));
  const beforeLink = link < 0 ? words : words.slice(0, link);
  const counted = beforeLink.filter((word) => !tables.trailing.has(word)).slice(-1);
  const divisors = words.filter((_, index) => index && tables.per.has(words[index - 1]));
  return [new Set(counted.map(stem)), new Set(divisors.map(stem))];
}

function isNoUnit(word) {
  const variable = [...word].length === 1 || DIGIT.test(word);
  return variable || tables.number_words.has(word) || tables.connectives.has(word);
}

function stem(noun) {
  const bare = noun.replace(/s$/, "").replace(/e$/, "");
  return bare === "dollar" ? "$" : bare;
}

export const union = (left, right) => new Set([...left, ...right]);
const intersect = (left, right) => [...left].some((item) => right.has(item));
const either = (left, right) => (left.size ? left : right);
const difference = (left, right) => new Set([...left].filter((item) => !right.has(item)));
const cancel = (units, per) => [difference(units, per), difference(per, units)];
