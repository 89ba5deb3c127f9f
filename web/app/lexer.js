// Lexer for arithmetic in prose, Markdown and LaTeX, a port of runtime/arithmetic/lexer.py.

import { DECIMAL, VULGAR_FRACTIONS } from "./final_answer.js";
import { CURRENCIES } from "./units.js";

// Python's Unicode character classes: \w, \d, \s and \b.
export const WORD = String.raw`\p{L}\p{N}_`;
export const DIGIT = String.raw`\p{Nd}`;
export const SPACE = String.raw`\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000`;
export const BOUNDARY = `(?:(?<=[${WORD}])(?![${WORD}])|(?<![${WORD}])(?=[${WORD}]))`;

const MARKUP = new RegExp(
  [
    String.raw`\\\\`,
    String.raw`\\(?:text|math|boxed|operatorname)[a-z]*[${SPACE}]?\{(?<content>[^{}]*)\}`,
    String.raw`\\(?:(?:left|right|[bB]igg?[lr]?|displaystyle|q?quad)(?![a-zA-Z])|[()\[\],;:! ])`,
    String.raw`(?<![${WORD})])\*\*(?=[^${SPACE}])`,
    String.raw`(?<=[^${SPACE}])\*\*(?![${WORD}(\-])`,
    String.raw`(?<=[.:!?])\*(?=[${SPACE}])`,
    String.raw`(?<=(?![${DIGIT}_])[${WORD}])\*(?=[ \t]*\n)`,
    String.raw`\$\$`,
    "[`&]",
  ].join("|"),
  "gu",
);

const LIST_MARKER = String.raw`(?:[\-*\u2022\u2013]|\(?(?:${DIGIT}{1,2}|[a-zA-Z])[.)](?![ \t]+[\-+*\/]))[ \t]+`;
const LINE_START = String.raw`(?:[ \t>]|#+[ \t])*(?:${LIST_MARKER})*`;
const VULGAR = Object.keys(VULGAR_FRACTIONS).join("");
const LETTER = `(?:(?![${DIGIT}_${VULGAR}])[${WORD}])`;
const TIMES = "\u00d7\u00b7\u22c5\u2217\u2219";
const MINUS = "\u2212\u2010\u2011\u2013";
const OVER = "\u00f7\u2044";
const BREAKS = [
  String.raw`\n${LINE_START}`,
  `[.!?]+(?![^${SPACE}])`,
  String.raw`\.{2,}`,
  "\u2026",
  `,(?![^${SPACE}])`,
  String.raw`[;|"\u201c\u201d\u2192]`,
  "-{1,2}>",
  "-{3,}",
  String.raw`\*{3,}`,
  "<<",
  ">>",
  `(?<![${DIGIT}${SPACE}]):`,
  `(?<=${DIGIT}):(?=[${SPACE}])`,
  `(?<=[^${DIGIT}${SPACE}][${SPACE}]):`,
].join("|");
const YEAR = `(?:19|20)${DIGIT}{2}`;
const DATE_FORMS = String.raw`${DIGIT}{1,2}\/${DIGIT}{1,2}\/${YEAR}|${YEAR}-[01]${DIGIT}-[0-3]${DIGIT}`;
const DATE = `(?<!${DIGIT})(?:${DATE_FORMS})(?!${DIGIT})`;
const OPERATOR = [
  String.raw`[\-+*\/^${TIMES}${MINUS}${OVER}]`,
  String.raw`\\(?:times|cdot|div)(?![a-zA-Z])`,
  String.raw`(?<=[${DIGIT})])(?<!${BOUNDARY}0)[xX](?=[${SPACE}]?[${DIGIT}${CURRENCIES}])`,
  String.raw`(?<=[${SPACE}])[xX](?=[${SPACE}]+[${DIGIT}${CURRENCIES}${VULGAR}(.\\])`,
  String.raw`${BOUNDARY}of(?=[${SPACE}]+\\?[${DIGIT}${CURRENCIES}(.])`,
].join("|");
const PATTERNS = {
  break: BREAKS,
  date: DATE,
  compound: String.raw`${DIGIT}+(?:\.${DIGIT}+)?-${LETTER}[${WORD}\-]*`,
  number: String.raw`\d+(?: and)? \d+\/\d+(?![\d.\/])|\d* ?[${VULGAR}]|${DECIMAL}`,
  percent: String.raw`\\?%|percent${BOUNDARY}`,
  currency: String.raw`\\?\$|[${CURRENCIES}]`,
  fraction: String.raw`\\[dt]?frac(?![a-zA-Z])`,
  operator: OPERATOR,
  word: `${LETTER}[${WORD}]*(?:['\u2019\\-]${LETTER}[${WORD}]*)*`,
  open: String.raw`[(\[]`,
  close: String.raw`[)\]]`,
  brace: "[{}]",
  unknown: String.raw`\\[a-zA-Z]+|[^${SPACE}]`,
};
const NAMED_GROUPS = Object.entries(PATTERNS).map(([kind, pattern]) => `(?<${kind}>${pattern})`);
const LEXEME = new RegExp(NAMED_GROUPS.join("|"), "gu");
const TEXT_START = new RegExp(`^${LINE_START}`, "u");
const LATEX_OPERATOR = /\\(?:times|cdot|div|[dt]?frac)/;
const OPERATORS = Object.fromEntries([
  ...[...TIMES, "x", "X", "\\times", "\\cdot"].map((sign) => [sign, "*"]),
  ...[...MINUS].map((sign) => [sign, "-"]),
  ...[...OVER, "\\div"].map((sign) => [sign, "/"]),
]);

// Kinds that end an operand, besides words.
export const OPERAND_ENDS = ["number", "percent", "currency", "close", "brace"];

/** Replace markup with spaces, which keeps all positions; a LaTeX line break becomes a newline. */
export function blankMarkup(text) {
  return text.replace(MARKUP, (match, ...rest) => {
    if (match === "\\\\") return "\n ";
    const { content = "" } = rest.at(-1);
    return content.padStart(match.length - (content ? 1 : 0)).padEnd(match.length);
  });
}

/**
 * The lexemes between two positions, framed by one for the text before them and an "end".
 *
 * @param {string} text result of blankMarkup().
 * @param {number} start
 * @param {number} end
 * @param {boolean} [bounded] whether no expression can begin before `start`. The first lexeme is then a "break",
 *   else "unknown".
 * @returns {Array<{kind: string, text: string, start: number, end: number, tight: boolean}>} `tight`: whether no
 *   space separates it from the lexeme before and, for an operator, from the one after.
 */
export function lex(text, start, end, bounded = true) {
  const lexemes = [{ kind: bounded ? "break" : "unknown", text: "", start, end: start, tight: false }];
  const scope = text.slice(0, end);
  const inLatex = LATEX_OPERATOR.test(scope.slice(start));
  let [last, previous] = [start, ""];
  for (const match of matches(scope, start)) {
    let { kind, text: lexeme } = match;
    if (lexeme === "$" && inLatex) continue; // a math delimiter; LaTeX writes money as \$
    let tight = match.start === last;
    if (kind === "operator") {
      lexeme = OPERATORS[lexeme] ?? lexeme;
      tight &&= !isSpace(text.slice(match.end, match.end + 1));
    }
    if (lexeme === "of" && !OPERAND_ENDS.includes(previous)) kind = "word";
    lexemes.push({ kind, text: lexeme, start: match.start, end: match.end, tight });
    [last, previous] = [match.end, kind];
  }
  lexemes.push({ kind: "end", text: "", start: end, end, tight: false });
  return lexemes;
}

/** Yield the matches from a position on; at position 0, first the list markers of the first line. */
function* matches(scope, start) {
  let from = start;
  if (start === 0) {
    const [text] = TEXT_START.exec(scope);
    yield { kind: "break", text, start: 0, end: text.length };
    from = text.length;
  }
  LEXEME.lastIndex = from;
  for (let match; (match = LEXEME.exec(scope)); ) {
    const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
    const end = LEXEME.lastIndex;
    yield { kind, text: match[0], start: match.index, end };
    LEXEME.lastIndex = end;
  }
}

function isSpace(text) {
  return new RegExp(`^[${SPACE}]+$`, "u").test(text);
}
