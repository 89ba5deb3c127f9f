// Splits the text of a block into spans: plain text, code, formulas, and emphasized parts.
//
// Emphasis is stricter than in Markdown, where "3*12 = 36 and 5*4 = 20" would lose its two signs: next to an
// operand, "*" is a multiplication.

const FORMULA_CHARS_MAX = 2000; // longer ones are shown as text
const CLOSINGS = { "\\(": "\\)", "\\[": "\\]", $$: "$$" };
const SIGN = /\\[([]|\$\$|`+|\*+|_+/g;
const OPENING = /\\[([]|\$\$/g;
const RUN_MAX = 3; // more stars or underscores are a line, or a blank to fill in
const NEAR_CHARS = 8; // searched for an operand next to a star

const OPERAND_BEFORE = /[0-9)\]}%][^\S\n]*$/;
const OPERAND_AFTER = /^[^\S\n]*[0-9([{$€£\\]/;

/**
 * @param {string} text
 * @param {number} start
 * @param {number} end
 * @returns {Array<object>} spans in text order, by their `kind`, with their offsets `start` and `end`: "text",
 *   "code" (without its backticks), "formula" with its `latex` and whether it is set in `display` style, and
 *   "emphasis" with its `run` of stars or underscores and its spans, `children`.
 */
export function parseSpans(text, start, end) {
  const tokens = [...scan(text.slice(start, end))];
  pair(tokens);
  return nest(tokens, 0, tokens.length).map((span) => moved(span, start));
}

/** Offset at which the formulas end that begin between two offsets; `end` if none goes beyond it. */
export function formulaEnd(text, start, end) {
  let last = end;
  let from = start; // where the next formula may begin
  for (const match of text.slice(start, end).matchAll(OPENING)) {
    const index = start + match.index;
    const formula = index < from ? null : readFormula(text, { 0: match[0], index });
    if (formula) [from, last] = [formula.end, Math.max(last, formula.end)];
  }
  return last;
}

function* scan(part) {
  const sign = new RegExp(SIGN);
  let from = 0;
  for (let match; (match = sign.exec(part)); ) {
    const token = part[match.index - 1] === "\\" ? null : readToken(part, match);
    if (!token) continue;
    yield plain(from, match.index);
    yield token;
    from = sign.lastIndex = token.after ?? token.end;
  }
  yield plain(from, part.length);
}

const plain = (start, end) => ({ kind: "text", start, end });

function readToken(part, match) {
  if (match[0] in CLOSINGS) return readFormula(part, match);
  return match[0].startsWith("`") ? readCode(part, match) : readRun(part, match);
}

function readFormula(text, { 0: sign, index: start }) {
  const from = start + sign.length;
  const length = text.slice(from, from + FORMULA_CHARS_MAX).indexOf(CLOSINGS[sign]);
  const latex = text.slice(from, from + Math.max(0, length));
  if (!latex.trim()) return null;
  return { kind: "formula", start, end: from + length + CLOSINGS[sign].length, latex, display: sign !== "\\(" };
}

function readCode(part, { 0: ticks, index }) {
  const start = index + ticks.length;
  const rest = part.slice(start);
  const length = rest.search(new RegExp(`(?<!\`)${ticks}(?!\`)`));
  return length > 0 ? { kind: "code", start, end: start + length, after: start + length + ticks.length } : null;
}

/** A run of stars or underscores, and whether emphasis can open and close there. */
function readRun(part, { 0: run, index: start }) {
  const end = start + run.length;
  const [before, after] = [part[start - 1] ?? " ", part[end] ?? " "];
  const star = run === "*";
  const opens = /\S/.test(after) && !/[0-9A-Za-z)\]}]/.test(before);
  const closes = /\S/.test(before) && !/[0-9A-Za-z]/.test(after);
  const multiplies = star && OPERAND_BEFORE.test(part.slice(Math.max(0, start - NEAR_CHARS), start));
  const multiplied = star && OPERAND_AFTER.test(part.slice(end, end + NEAR_CHARS));
  const token = { kind: "run", run, start, end, canOpen: opens && !multiplies, canClose: closes && !multiplied };
  return run.length <= RUN_MAX && (token.canOpen || token.canClose) ? token : null;
}

/** Give each run that opens an emphasis the index of the one that closes it, its `closing`. */
function pair(tokens) {
  const open = new Map(); // of each run, the index of the last one that can open an emphasis
  tokens.forEach(({ kind, run, canOpen, canClose }, index) => {
    if (kind !== "run") return;
    const opening = open.get(run);
    if (canClose && opening !== undefined) {
      tokens[opening].closing = index;
      for (const [other, at] of open) if (at >= opening) open.delete(other);
    } else if (canOpen) {
      open.set(run, index);
    }
  });
}

/** Spans from a range of tokens; runs that open nothing are plain text. */
function nest(tokens, from, to) {
  const spans = [];
  for (let index = from; index < to; index++) {
    const token = tokens[index];
    const last = spans.at(-1);
    if (token.closing) {
      const closing = tokens[token.closing];
      const children = nest(tokens, index + 1, token.closing);
      spans.push({ kind: "emphasis", run: token.run, start: token.start, end: closing.end, children });
      index = token.closing;
    } else if (token.kind === "code" || token.kind === "formula") {
      spans.push(token);
    } else if (last?.kind === "text" && last.end === token.start) {
      last.end = token.end;
    } else if (token.end > token.start) {
      spans.push(plain(token.start, token.end));
    }
  }
  return spans;
}

function moved(span, by) {
  const children = span.children?.map((child) => moved(child, by));
  return { ...span, start: span.start + by, end: span.end + by, ...(children && { children }) };
}
