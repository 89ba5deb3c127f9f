// Exact numbers and what they count: the rules of runtime/quantity.py, line by line.

import { HUNDRED } from "./fraction.js";
import { MONEY } from "./notation.js";

const LIMIT = 10n ** 60n;
const WORDS = 6; // of one unit

const whole = (form) => new RegExp(`^(?:${form})$`, "u");

export const NUMBERING = whole(
  "dozens?|hundreds?|thousands?|(?:m|b|tr)illions?|score|hal(?:f|ves)|(?:third|quarter|fourth|fifth|sixth|eighth)s?" +
    "|tenths?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:twen|thir|for|fif)ty|percent" +
    "|(?:six|seven|eigh|nine)ty|squared|cubed|pi|am|pm|o['\u2019]?clock|plus|minus|over|divided|multiplied|mod" +
    "|modulo|choose|factorial|remainder|than",
);
export const TELLING = whole(
  "because|since|so|is|are|was|were|be|if|then|equals?|gives|and|or|but|as|we|it",
);
const DIVIDES = "per|an?|each|every";
const DIVIDING = whole(DIVIDES);
const LINKING = whole(`${DIVIDES}|of|in|for|from|on|at|with|to|by|who|which|that|s?he|they`);
const TRAILING = whole("left|more|total|remaining|altogether|each|together");
const ABBREVIATED = whole("kgs?|[kcm]m|m[gl]|lbs?|oz|ft|in|hrs?|mins?|sec|mph");
const DIGIT = /[\p{Nd}\u00b2\u00b3\u00b9\u2070-\u2079\u2080-\u2089]/u;

/** An expression that has no value, or may mean more than one thing. */
export class Unclear extends Error {}

export function unclear() {
  throw new Unclear();
}

/** A number and what it counts; see Quantity of runtime/quantity.py. */
export class Quantity {
  /**
   * @param {Fraction} value
   * @param {Set<string>} [over] what it counts: stems of nouns, symbols of currencies.
   * @param {Set<string>} [under] what that is for one of.
   * @param {boolean} [percent] whether the number is one of hundredths.
   */
  constructor(value, over = new Set(), under = new Set(), percent = false) {
    if (value.reaches(LIMIT)) unclear();
    Object.assign(this, { value, over, under, percent });
  }

  with(changes) {
    const { value, over, under, percent } = { ...this, ...changes };
    return new Quantity(value, over, under, percent);
  }

  negative() {
    return this.with({ value: this.value.negative() });
  }

  plus(other) {
    if (this.over.size && other.over.size && !shared(this.over, other.over)) unclear();
    if (this.percent !== other.percent) return this.#fraction().plus(other.#fraction());
    const [over, under] = [either(this.over, other.over), either(this.under, other.under)];
    return new Quantity(this.value.plus(other.value), over, under, this.percent);
  }

  times(other) {
    let [value, percent] = [this.value.times(other.value), this.percent && other.percent];
    if (other.percent && other.value.equals(HUNDRED) && !this.percent && !shared(this.over, new Set(MONEY))) {
      if (this.value.under === 1n && !this.under.size) unclear(); // "80 * 100%": 80, or 8000%?
      percent = true;
    } else if (this.percent || other.percent) value = value.by(HUNDRED);
    const [over, under] = cancelled(union(this.over, other.over), union(this.under, other.under));
    return new Quantity(value, over, under, percent);
  }

  by(other) {
    if (other.value.isZero()) unclear();
    let value = this.value.by(other.value);
    if (other.percent && !this.percent) value = value.times(HUNDRED);
    const [over, under] = cancelled(union(this.over, other.under), union(this.under, other.over));
    return new Quantity(value, over, under, this.percent && !other.percent);
  }

  power(exponent) {
    if (this.over.size || this.percent) unclear();
    return new Quantity(this.value.power(exponent));
  }

  /** The number beside a percentage: "1 - 20%", while "100 - 20%" may mean 99.8 or 80. */
  #fraction() {
    if (this.percent) return new Quantity(this.value.by(HUNDRED), this.over, this.under);
    if (this.value.over !== 1n || this.value.under !== 1n || this.over.size) unclear();
    return this;
  }
}

/**
 * What the words after a number make it count: "red apples a day" counts apples for one day.
 *
 * @param {string[]} words in lower case.
 * @param {boolean} abbreviated the first is written to the number without a space.
 * @returns {[Set<string>, Set<string>]} what is counted, and what for one of.
 * @throws {Unclear} they may be variables, or belong to the number.
 */
export function units(words, abbreviated) {
  const first = words[0];
  if (first === "of" || first === "the" || words.length > WORDS) unclear();
  if (abbreviated && !ABBREVIATED.test(first)) unclear();
  if (words.some((word, place) => !(place && word === "a") && isNoUnit(word))) unclear();
  const link = words.findIndex((word) => LINKING.test(word));
  const before = link < 0 ? words : words.slice(0, link);
  const counted = before.filter((word) => !TRAILING.test(word)).slice(-1);
  const dividing = words.filter((_, place) => place && DIVIDING.test(words[place - 1]));
  return [new Set(counted.map(stem)), new Set(dividing.map(stem))];
}

function isNoUnit(word) {
  return [...word].length === 1 || DIGIT.test(word) || NUMBERING.test(word) || TELLING.test(word);
}

function stem(noun) {
  const bare = noun.replace(/s$/, "").replace(/e$/, "");
  return bare === "dollar" ? "$" : bare;
}

export const shared = (one, other) => [...one].some((item) => other.has(item));
export const union = (one, other) => new Set([...one, ...other]);
const either = (one, other) => (one.size ? one : other);
const without = (one, other) => new Set([...one].filter((item) => !other.has(item)));
const cancelled = (over, under) => [without(over, under), without(under, over)];
