// Exact rational numbers in lowest terms, like Python's fractions.Fraction.

export class Fraction {
  /**
   * @param {bigint} numerator
   * @param {bigint} [denominator]
   * @throws {RangeError} the denominator is zero.
   */
  constructor(numerator, denominator = 1n) {
    if (denominator === 0n) throw new RangeError("division by zero");
    const sign = denominator < 0n ? -1n : 1n;
    const common = gcd(numerator < 0n ? -numerator : numerator, sign * denominator) * sign;
    this.numerator = numerator / common;
    this.denominator = denominator / common;
    Object.freeze(this);
  }

  /** @param {string} text "12", "-12", "3.5", ".5" or "1/2". */
  static parse(text) {
    const [number, denominator] = text.split("/");
    if (denominator !== undefined) return new Fraction(BigInt(number), BigInt(denominator));
    const [whole, decimals = ""] = number.split(".");
    return new Fraction(BigInt(whole + decimals), 10n ** BigInt(decimals.length));
  }

  plus(other) {
    const numerator = this.numerator * other.denominator + other.numerator * this.denominator;
    return new Fraction(numerator, this.denominator * other.denominator);
  }

  times(other) {
    return new Fraction(this.numerator * other.numerator, this.denominator * other.denominator);
  }

  /** @throws {RangeError} the other is zero. */
  dividedBy(other) {
    return new Fraction(this.numerator * other.denominator, this.denominator * other.numerator);
  }

  /** @param {number} exponent an integer, which may be negative. */
  power(exponent) {
    const size = BigInt(Math.abs(exponent));
    const power = new Fraction(this.numerator ** size, this.denominator ** size);
    return exponent < 0 ? ONE.dividedBy(power) : power;
  }

  negated() {
    return new Fraction(-this.numerator, this.denominator);
  }

  abs() {
    return this.numerator < 0n ? this.negated() : this;
  }

  /** -1, 0 or 1 if this is less than, equal to or greater than the other. */
  compare(other) {
    const difference = this.numerator * other.denominator - other.numerator * this.denominator;
    return difference < 0n ? -1 : difference > 0n ? 1 : 0;
  }

  equals(other) {
    return this.compare(other) === 0;
  }

  isZero() {
    return this.numerator === 0n;
  }

  /** Whether the absolute numerator or the denominator is at least the limit. */
  reaches(limit) {
    return this.abs().numerator >= limit || this.denominator >= limit;
  }
}

function gcd(a, b) {
  while (b) [a, b] = [b, a % b];
  return a;
}

export const ZERO = new Fraction(0n);
export const ONE = new Fraction(1n);
export const HALF = new Fraction(1n, 2n);
export const HUNDRED = new Fraction(100n);
