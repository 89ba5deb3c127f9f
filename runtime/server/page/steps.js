// Finds the checked equations in an answer's text.

// After the expression: a relation, then a number or a sum of numbers, in plain text or LaTeX.
const ABOUT = String.raw`(?:(?:about|approximately|roughly)\s*)?`;
const RELATION = String.raw`[\s\\&]*(?:=|≈|\\approx|is\b)\s*${ABOUT}(?:<<[^<>\n]*>>)?\s*`;
const DIGITS = String.raw`(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?: \d+/\d+)?`;
const FRACTION = String.raw`[dt]?frac\s?\{[^{}]*\}\s?\{[^{}]*\}`;
const VALUE = String.raw`[-−+($€£*\\]*(?:${FRACTION}|${DIGITS})(?:\s?\\?%)?`;
const NUMBER = String.raw`(?:\\boxed\s?\{${VALUE}\}|${VALUE})`;
const OPERATOR = String.raw`\)?\s*(?:[-−+*/×÷·^]|\\(?:times|cdot|div)\b)\s*`;
const CLAIM = new RegExp(`^(${RELATION})(${NUMBER}(?:${OPERATOR}${NUMBER})*)?`);
const CLAIM_CHARS_MAX = 300; // searched after an expression

/**
 * Split a text into segments, some of which are equations.
 *
 * @param {string} text
 * @param {Array<{expression: string, computed: string, ok: boolean}>} steps checked equations in text order.
 * @returns {Array<{text: string, claim: string, step: ?object}>} segments whose `text` and `claim` concatenate
 *   to the whole text; `claim` is the claimed result of an equation. Steps that are not found are skipped.
 */
export function splitSteps(text, steps) {
  const segments = [];
  let end = 0; // of the last segment
  let from = 0; // where the next expression may start: the claim of an equation can start the next equation
  for (const step of steps) {
    const match = findEquation(text, step.expression, from);
    if (!match) continue;
    from = match.relation;
    const start = Math.max(match.start, end);
    if (match.claim < start) continue;
    segments.push({ text: text.slice(end, start), claim: "", step: null });
    segments.push({ text: text.slice(start, match.claim), claim: text.slice(match.claim, match.end), step });
    end = match.end;
  }
  segments.push({ text: text.slice(end), claim: "", step: null });
  return segments.filter((segment) => segment.text || segment.claim);
}

/** Offsets of the first equation with this expression: start, relation, claim and end; null if there is none. */
function findEquation(text, expression, from) {
  for (let start = text.indexOf(expression, from); start >= 0; start = text.indexOf(expression, start + 1)) {
    const relation = start + expression.length;
    const match = CLAIM.exec(text.slice(relation, relation + CLAIM_CHARS_MAX));
    if (match) return { start, relation, claim: relation + match[1].length, end: relation + match[0].length };
  }
  return null;
}
