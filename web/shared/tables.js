// The tables of arithmetic notation that Python reads too, with its patterns made JavaScript's. notation.js holds
// runtime/arithmetic/notation.json; notation.py describes the syntax of its patterns.

import notation from "./notation.js";

export const { limits, operators } = notation;
/** Values of number words. */
export const values = new Map(Object.entries(notation.values));
export const words = Object.fromEntries(
  Object.entries(notation.words).map(([name, lines]) => [name, new Set(lines.join(" ").split(" "))]),
);

// Python's classes of characters.
const WORD = String.raw`\p{L}\p{N}_`;
const SPACE = String.raw`\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000`;
const BOUNDARY = `(?:(?<=[${WORD}])(?![${WORD}])|(?<![${WORD}])(?=[${WORD}]))`;
const UNICODE = { w: WORD, d: String.raw`\p{Nd}`, s: SPACE, b: BOUNDARY };
const ASCII = { s: String.raw` \t\n\r\f\v` };

const fragments = {
  vulgar: Object.keys(notation.vulgar_fractions).join(""),
  signs: Object.keys(operators).filter((sign) => sign > "\x7f").join(""),
};
for (const [name, text] of Object.entries(notation.fragments)) fragments[name] = expand(text);

/** Characters that are currencies. */
export const currencies = new Set(fragments.currencies);

/** Pattern of any lexeme, with a group for each kind. */
export const LEXEME = compile(
  Object.entries(notation.lexemes).map(([kind, patterns]) => `(?<${kind}>${patterns.join("|")})`),
  UNICODE,
  "gu",
);

/** A pattern of prose. */
export const prose = (name, flags = "") => compile(notation.prose[name], UNICODE, `${flags}u`);

/** A pattern of answers, which `end` continues. */
export const answer = (name, flags, end = "") => compile([notation.answers[name].join("|") + end], ASCII, `${flags}i`);

/** Patterns whose group captures the text that states an answer, the most explicit first. */
export const CUES = Object.values(notation.cues).map((patterns) => compile(patterns, ASCII, "gi"));

/** Patterns of answers with their replacements, in order. */
export const NORMALIZATIONS = Object.entries(notation.normalizations).map(([pattern, replacement]) => [
  compile([pattern], ASCII, "gi"),
  replacement.replace(/\\(\d)/g, "$$$1"),
]);

const ALL_SPACE = new RegExp(`^[${SPACE}]$`, "u");
export const isSpace = (character) => ALL_SPACE.test(character);

/** A text without the white space at its end, in linear time. */
export function trimEnd(text) {
  let end = text.length;
  while (end && isSpace(text[end - 1])) end--;
  return text.slice(0, end);
}

/** Replace "½" by " 1/2", and so on. */
const VULGAR = new RegExp(`[${fragments.vulgar}]`, "gu");
export const expandVulgar = (text) => text.replace(VULGAR, (sign) => notation.vulgar_fractions[sign]);

function compile(alternatives, classes, flags) {
  const source = expand(alternatives.join("|"))
    .replace(/\\(.)/gs, (escape, name) => classes[name] ?? escape)
    .replaceAll("(?P<", "(?<")
    .replace(/\(\?P=(\w+)\)/g, "\\k<$1>");
  return new RegExp(source, flags);
}

/** Replace the names of fragments. */
function expand(pattern) {
  return pattern.replace(/\{([a-z_]+)\}/g, (_, name) => {
    if (!Object.hasOwn(fragments, name)) throw new Error(`notation.js: there is no fragment ${name}`);
    return fragments[name];
  });
}
