// Lexer for arithmetic in prose, Markdown and LaTeX, a port of runtime/arithmetic/lexer.py.

import { ALL_SPACE, kinds, LEXEME, operators, prose } from "./tables.js";

const MARKUP = prose("markup", "g");
const FIRST_LINE = prose("first_line", "y");
const LATEX_OPERATOR = prose("latex_operator", "");

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
      lexeme = operators[lexeme] ?? lexeme;
      tight &&= !ALL_SPACE.test(text.slice(match.end, match.end + 1));
    }
    if (lexeme === "of" && !kinds.operand_ends.includes(previous)) kind = "word";
    lexemes.push({ kind, text: lexeme, start: match.start, end: match.end, tight });
    [last, previous] = [match.end, kind];
  }
  lexemes.push({ kind: "end", text: "", start: end, end, tight: false });
  return lexemes;
}

/** Yield the lexemes of a text as they are written. */
export function* matchLexemes(text, from = 0) {
  LEXEME.lastIndex = from;
  for (let match; (match = LEXEME.exec(text)); ) {
    const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
    const end = LEXEME.lastIndex;
    yield { kind, text: match[0], start: match.index, end };
    LEXEME.lastIndex = end;
  }
}

/** Yield the matches from a position on; at position 0, first the list markers of the first line. */
function* matches(scope, start) {
  let from = start;
  if (start === 0) {
    FIRST_LINE.lastIndex = 0;
    const [text] = FIRST_LINE.exec(scope);
    yield { kind: "break", text, start: 0, end: text.length };
    from = text.length;
  }
  yield* matchLexemes(scope, from);
}
