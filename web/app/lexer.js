// How sums are written in prose, Markdown and LaTeX: the rules of runtime/notation.py, line by line.

import { DECIMAL, VULGAR } from "./final.js";

export const MONEY = "$\u20ac\u00a3\u00a5\u20b9"; // dollar, euro, pound, yen, rupee

// Python's classes of characters, which go by Unicode.
export const W = String.raw`\p{L}\p{N}_`;
export const D = String.raw`\p{Nd}`;
export const S = String.raw`\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000`;
export const EDGE = `(?:(?<=[${W}])(?![${W}])|(?<![${W}])(?=[${W}]))`; // the edge of a word

const MARKUP = new RegExp(
  [
    String.raw`\\\\`,
    String.raw`\\(?:text|math|boxed|operatorname)[a-z]*[${S}]?\{(?<inside>[^{}]*)\}`,
    String.raw`\\(?:(?:left|right|[bB]igg?[lr]?|displaystyle|q?quad)(?![a-zA-Z])|[()\[\],;:! ])`,
    String.raw`(?<![${W})])\*\*(?=[^${S}])`,
    String.raw`(?<=[^${S}])\*\*(?![${W}(\-])`,
    String.raw`(?<=[.:!?])\*(?=[${S}])`,
    String.raw`(?<=(?![${D}_])[${W}])\*(?=[ \t]*\n)`,
    String.raw`\$\$`,
    "[`&]",
  ].join("|"),
  "gu",
);

const MARKER = String.raw`(?:[\-*\u2022\u2013]|\(?(?:${D}{1,2}|[a-zA-Z])[.)](?![ \t]+[\-+*\/]))[ \t]+`;
const MARKERS = String.raw`(?:[ \t>]|#+[ \t])*(?:${MARKER})*`;
const FRACTIONS = Object.keys(VULGAR).join("");
const LETTER = `(?:(?![${D}_${FRACTIONS}])[${W}])`;
const TIMES = "\u00d7\u00b7\u22c5\u2217\u2219";
const MINUS = "\u2212\u2010\u2011\u2013";
const OVER = "\u00f7\u2044";
const BREAKS = [
  String.raw`\n${MARKERS}`,
  `[.!?]+(?![^${S}])`,
  String.raw`\.{2,}`,
  "\u2026",
  `,(?![^${S}])`,
  String.raw`[;|"\u201c\u201d\u2192]`,
  "-{1,2}>",
  "-{3,}",
  String.raw`\*{3,}`,
  "<<",
  ">>",
  `(?<![${D}${S}]):`,
  `(?<=${D}):(?=[${S}])`,
  `(?<=[^${D}${S}][${S}]):`,
].join("|");
const DATE = String.raw`(?<!${D})(?:${D}{1,2}\/${D}{1,2}\/(?:19|20)${D}{2}|(?:19|20)${D}{2}-[01]${D}-[0-3]${D})(?!${D})`;
const OPERATOR = [
  String.raw`[\-+*\/^${TIMES}${MINUS}${OVER}]`,
  String.raw`\\(?:times|cdot|div)(?![a-zA-Z])`,
  String.raw`(?<=[${D})])(?<!${EDGE}0)[xX](?=[${S}]?[${D}${MONEY}])`,
  String.raw`(?<=[${S}])[xX](?=[${S}]+[${D}${MONEY}${FRACTIONS}(.\\])`,
  String.raw`${EDGE}of(?=[${S}]+\\?[${D}${MONEY}(.])`,
].join("|");
const KINDS = {
  date: DATE,
  compound: String.raw`${D}+(?:\.${D}+)?-${LETTER}[${W}\-]*`,
  number: String.raw`\d+(?: and)? \d+\/\d+(?![\d.\/])|\d* ?[${FRACTIONS}]|${DECIMAL}`,
  percent: String.raw`\\?%|percent${EDGE}`,
  currency: String.raw`\\?\$|[${MONEY}]`,
  fraction: String.raw`\\[dt]?frac(?![a-zA-Z])`,
  operator: OPERATOR,
  word: `${LETTER}[${W}]*(?:['\u2019\\-]${LETTER}[${W}]*)*`,
  open: String.raw`[(\[]`,
  close: String.raw`[)\]]`,
  brace: "[{}]",
  unknown: String.raw`\\[a-zA-Z]+|[^${S}]`,
};
const OTHERS = Object.entries(KINDS).map(([kind, form]) => `(?<${kind}>${form})`);
const LEXEMES = new RegExp([`(?<break>${BREAKS})`, ...OTHERS].join("|"), "gu");
const OPENING = new RegExp(`^${MARKERS}`, "u"); // a list's marker where the text begins
const LATEX = /\\(?:times|cdot|div|[dt]?frac)/;
const SIGNS = Object.fromEntries([
  ...[...TIMES, "x", "X", "\\times", "\\cdot"].map((sign) => [sign, "*"]),
  ...[...MINUS].map((sign) => [sign, "-"]),
  ...[...OVER, "\\div"].map((sign) => [sign, "/"]),
]);

export const ENDS = ["number", "percent", "currency", "close", "brace"]; // what may end an operand, beside words

/** The text with spaces for its markup, each character in its place; a LaTeX line break becomes one. */
export function blanked(text) {
  return text.replace(MARKUP, (found, ...rest) => {
    if (found === "\\\\") return "\n ";
    const { inside = "" } = rest.at(-1);
    return inside.padStart(found.length - (inside ? 1 : 0)).padEnd(found.length);
  });
}

/**
 * The lexemes between two places, between one for what stands before them and an "end".
 *
 * @param {string} text as blanked() returns it.
 * @param {boolean} [whole] nothing that belongs to them stands before; then the first is a "break".
 * @returns {Array<{kind: string, text: string, start: number, end: number, tight: boolean}>} `tight`: it follows
 *   the one before without a space and, if it is an operator, is so followed too.
 */
export function lexemes(text, start, end, whole = true) {
  const all = [{ kind: whole ? "break" : "unknown", text: "", start, end: start, tight: false }];
  const scope = text.slice(0, end);
  const latex = LATEX.test(scope.slice(start));
  let [last, before] = [start, ""];
  for (const found of matches(scope, start)) {
    let { kind, text: piece } = found;
    if (piece === "$" && latex) continue; // a delimiter: there, money is \$
    let tight = found.start === last;
    if (kind === "operator") {
      piece = SIGNS[piece] ?? piece;
      tight &&= !isSpace(text.slice(found.end, found.end + 1));
    }
    if (piece === "of" && !ENDS.includes(before)) kind = "word";
    all.push({ kind, text: piece, start: found.start, end: found.end, tight });
    [last, before] = [found.end, kind];
  }
  all.push({ kind: "end", text: "", start: end, end, tight: false });
  return all;
}

/** What the forms find, from a place on; at the text's own beginning, first the markers of a list. */
function* matches(scope, start) {
  let from = start;
  if (start === 0) {
    const [text] = OPENING.exec(scope);
    yield { kind: "break", text, start: 0, end: text.length };
    from = text.length;
  }
  LEXEMES.lastIndex = from;
  for (let found; (found = LEXEMES.exec(scope)); ) {
    const kind = Object.keys(found.groups).find((name) => found.groups[name] !== undefined);
    const at = LEXEMES.lastIndex;
    yield { kind, text: found[0], start: found.index, end: at };
    LEXEMES.lastIndex = at;
  }
}

export function isSpace(text) {
  return new RegExp(`^[${S}]+$`, "u").test(text);
}
