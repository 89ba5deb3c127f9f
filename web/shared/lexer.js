// Lexer for arithmetic in prose, Markdown and LaTeX, a port of runtime/arithmetic/lexer.py.

import { Fraction } from "./fraction.js";
import { isSpace, LEXEME, operators, prose } from "./tables.js";

const LATEX = prose("latex");

/**
 * The lexemes from a position on, without markup and the braces of `\text{…}`.
 *
 * @param {string} text
 * @param {number} [start]
 * @returns {Array<{kind: string, text: string, start: number, end: number, tight: boolean}>} `tight`: whether no
 *   space separates it from the lexeme before and, for an operator, from the one after.
 */
export function lex(text, start = 0) {
  const [lexemes, groups, inLatex] = [[], [], LATEX.test(text)];
  let last = -1;
  LEXEME.lastIndex = start;
  for (const match of text.matchAll(LEXEME)) {
    const kind = Object.keys(match.groups).find((name) => match.groups[name] !== undefined);
    let lexeme = match[0];
    if (kind === "skip") continue;
    if (kind === "group" || lexeme === "{") groups.push(kind === "group");
    if (kind === "group" || (lexeme === "}" && groups.pop())) continue;
    let tight = match.index === last;
    const between = text.slice(Math.max(last, 0), match.index);
    last = match.index + lexeme.length;
    if (kind === "operator") {
      lexeme = operators[lexeme] ?? lexeme;
      tight &&= !isSpace(text[last] ?? "");
    }
    const isOther = (kind === "operator" && between.includes("\n")) || (lexeme === "$" && inLatex);
    lexemes.push({ kind: isOther ? "unknown" : kind, text: lexeme, start: match.index, end: last, tight });
  }
  return lexemes;
}

/** The value of a number. */
export const numberValue = ({ text }) => Fraction.parse(text.replaceAll(",", ""));
