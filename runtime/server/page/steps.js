// Where the equations that the server has checked stand in a text.

// Behind the expression: a sign, and then a number or a sum of numbers, written plainly or in LaTeX.
const ABOUT = String.raw`(?:(?:about|approximately|roughly)\s*)?`;
const SIGN = String.raw`[\s\\&]*(?:=|≈|\\approx|is\b)\s*${ABOUT}(?:<<[^<>\n]*>>)?\s*`;
const DIGITS = String.raw`(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?: \d+/\d+)?`;
const FRACTION = String.raw`[dt]?frac\s?\{[^{}]*\}\s?\{[^{}]*\}`;
const VALUE = String.raw`[-−+($€£*\\]*(?:${FRACTION}|${DIGITS})(?:\s?\\?%)?`;
const NUMBER = String.raw`(?:\\boxed\s?\{${VALUE}\}|${VALUE})`;
const OPERATOR = String.raw`\)?\s*(?:[-−+*/×÷·^]|\\(?:times|cdot|div)\b)\s*`;
const CLAIM = new RegExp(`^(${SIGN})(${NUMBER}(?:${OPERATOR}${NUMBER})*)?`);
const REACH = 300; // characters behind an expression that are looked at

/**
 * A text in pieces, some of which are equations.
 *
 * @param {string} text
 * @param {Array<{expression: string, computed: string, ok: boolean}>} steps in the text's order.
 * @returns {Array<{text: string, claim: string, step: ?object}>} pieces that together are the text: `text` and
 *   then, of an equation, what it claims. A step whose place is not found has no piece.
 */
export function pieces(text, steps) {
  const cut = [];
  let end = 0; // of what is cut
  let from = 0; // where the next expression may begin: the claim of one may be the start of the next
  for (const step of steps) {
    const place = found(text, step.expression, from);
    if (!place) continue;
    from = place.sign;
    const start = Math.max(place.start, end);
    if (place.claim < start) continue;
    cut.push({ text: text.slice(end, start), claim: "", step: null });
    cut.push({ text: text.slice(start, place.claim), claim: text.slice(place.claim, place.end), step });
    end = place.end;
  }
  cut.push({ text: text.slice(end), claim: "", step: null });
  return cut.filter((piece) => piece.text || piece.claim);
}

/** Where an expression with a sign behind it stands: its start, the sign's, the claim's and the end. */
function found(text, expression, from) {
  for (let start = text.indexOf(expression, from); start >= 0; start = text.indexOf(expression, start + 1)) {
    const sign = start + expression.length;
    const match = CLAIM.exec(text.slice(sign, sign + REACH));
    if (match) return { start, sign, claim: sign + match[1].length, end: sign + match[0].length };
  }
  return null;
}
