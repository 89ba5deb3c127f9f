// Exact fractions of whole numbers, always in lowest terms; like Python's fractions.Fraction.

export class Fraction {
  /**
   * @param {bigint} over
   * @param {bigint} [under]
   * @throws {RangeError} `under` is zero.
   */
  constructor(over, under = 1n) {
    if (under === 0n) throw new RangeError("division by zero");
    const common = divisor(over < 0n ? -over : over, under < 0n ? -under : under) * (under < 0n ? -1n : 1n);
    this.over = over / common;
    this.under = under / common;
    Object.freeze(this);
  }

  /** @param {string} text "12", "3.5", ".5" or "1/2", without a sign. */
  static of(text) {
    const [over, under] = text.split("/");
    if (under !== undefined) return new Fraction(BigInt(over), BigInt(under));
    const [whole, part = ""] = over.split(".");
    return new Fraction(BigInt(whole + part), 10n ** BigInt(part.length));
  }

  plus(other) {
    return new Fraction(this.over * other.under + other.over * this.under, this.under * other.under);
  }

  times(other) {
    return new Fraction(this.over * other.over, this.under * other.under);
  }

  /** @throws {RangeError} the other is zero. */
  by(other) {
    return new Fraction(this.over * other.under, this.under * other.over);
  }

  /** @param {number} exponent whole, may be negative. */
  power(exponent) {
    const size = BigInt(Math.abs(exponent));
    const raised = new Fraction(this.over ** size, this.under ** size);
    return exponent < 0 ? ONE.by(raised) : raised;
  }

  negative() {
    return new Fraction(-this.over, this.under);
  }

  size() {
    return this.over < 0n ? this.negative() : this;
  }

  /** -1, 0 or 1, as this is less than the other, equal or more. */
  against(other) {
    const difference = this.over * other.under - other.over * this.under;
    return difference < 0n ? -1 : difference > 0n ? 1 : 0;
  }

  equals(other) {
    return this.against(other) === 0;
  }

  isZero() {
    return this.over === 0n;
  }

  /** The largest whole number that is not more. */
  floor() {
    const whole = this.over / this.under;
    return this.over % this.under < 0n ? whole - 1n : whole;
  }

  /** The nearest whole number, of two the even one. */
  round() {
    const below = this.floor();
    const side = this.plus(new Fraction(-below)).against(HALF);
    return side > 0 || (side === 0 && below % 2n !== 0n) ? below + 1n : below;
  }

  /** Whether the numerator or the denominator is so large or larger. */
  reaches(limit) {
    return this.size().over >= limit || this.under >= limit;
  }
}

function divisor(one, other) {
  while (other) [one, other] = [other, one % other];
  return one;
}

export const ZERO = new Fraction(0n);
export const ONE = new Fraction(1n);
export const HALF = new Fraction(1n, 2n);
export const HUNDRED = new Fraction(100n);
