// Finds the checked equations in an answer's text.

// After the expression: a relation, then a number or a sum of numbers, in plain text or LaTeX.
const ABOUT = String.raw`(?:(?:about|approximately|roughly)\s*)?`;
const RELATION = String.raw`[\s\\&]*(?:=|≈|\\approx|is\b)\s*${ABOUT}(?:<<[^<>\n]*>>)?\s*`;
const DIGITS = String.raw`(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?: \d+/\d+)?`;
const FRACTION = String.raw`[dt]?frac\s?\{[^{}]*\}\s?\{[^{}]*\}`;
const VALUE = String.raw`[-−+($€£*\\]*(?:${FRACTION}|${DIGITS})(?:\s?\\?%)?`;
const NUMBER = String.raw`(?:\\boxed\s?\{${VALUE}\}|${VALUE})`;
const OPERATOR = String.raw`\)?[^\S\n]*(?:[-−+*/×÷·^]|\\(?:times|cdot|div)\b)\s*`;
const CLAIM = new RegExp(`^(${RELATION})(${NUMBER}(?:${OPERATOR}${NUMBER})*)?`);
const CLAIM_CHARS_MAX = 300; // searched after an expression

/**
 * Find equations in a text.
 *
 * @param {string} text
 * @param {Array<{expression: string, computed: string, ok: boolean}>} steps checked equations in text order.
 * @returns {Array<{start: number, claim: number, end: number, step: object}>} where each equation, its claimed
 *   result and its end are; they do not overlap. Steps that are not found are skipped.
 */
export function findSteps(text, steps) {
  const found = [];
  let end = 0; // of the last equation
  let from = 0; // where the next expression may start: the claim of an equation can start the next equation
  for (const step of steps) {
    const match = findEquation(text, step.expression, from);
    if (!match) continue;
    from = match.relation;
    const start = Math.max(match.start, end);
    if (match.claim < start) continue;
    end = match.end;
    found.push({ start, claim: match.claim, end, step });
  }
  return found;
}

/** Offsets of the first equation with this expression: start, relation, claim and end; null if there is none. */
function findEquation(text, expression, from) {
  for (let start = text.indexOf(expression, from); start >= 0; start = text.indexOf(expression, start + 1)) {
    const relation = start + expression.length;
    const match = CLAIM.exec(text.slice(relation, relation + CLAIM_CHARS_MAX));
    if (match) return { start, relation, claim: relation + match[1].length, end: relation + match[0].trimEnd().length };
  }
  return null;
}
