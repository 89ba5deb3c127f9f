// Describes an answer's text as elements. Model output becomes text nodes and formulas, never markup.
//
// markdown-it parses the text, without links, images and HTML. Formulas, and signs of sums that Markdown would
// take for its own, are hidden from it behind as many letters: what it finds has the same offsets in the text.

import "./markdown-it/markdown-it.umd.min.js"; // a script for all module systems; it sets a global variable
import { Marks, normalize } from "./marks.js";
import { formula, node } from "./tree.js";

const RULES = ["fence", "heading", "hr", "list", "backticks", "emphasis"];
const MARKDOWN = globalThis.markdownit("zero", { maxNesting: 100 }).enable(RULES);
const HEADING_LEVEL = 2; // of the question
const HEADING_LEVEL_MAX = 6;

const CODE = [/^[ \t]*(```+|~~~+)[^]*?(?:^[ \t]*\1|(?![^]))/, /(`+)(?!`)[^]{1,2000}?(?<!`)\2(?!`)|`+/];
const FORMULA = /\\\((?<inline>[^]{1,2000}?)\\\)|\\\[(?<display>[^]{1,2000}?)\\\]|\$\$(?<dollars>[^]{1,2000}?)\$\$/;
const SIGNS = [
  /\\[\\*_`]/,
  /(?<=[\dA-Za-z)\]}])\*+(?=[\dA-Za-z(])/, // 3*x, 2**3
  /(?<=[\d)\]}%][^\S\n]{0,8})\*(?=[^\S\n]{0,8}[\d([{$€£\\])/, // 2 *(3 + 4)* 5
  /\*(?<=^[ \t]*\*)(?=[-\d.,+*/×÷=()$%^ \t]+$)(?=.*\d)/, // a line that goes on from the one above
  /\+(?<=^[ \t]*\+)(?=[ \t])/,
];
const BULLET = /•(?<=^[ \t]*•)(?=[ \t])/;
const HIDDEN = new RegExp([...CODE, FORMULA, ...SIGNS, BULLET].map(({ source }) => source).join("|"), "gm");

/**
 * @param {string} source
 * @param {object[]} steps checked equations in text order; see marks.js.
 * @returns {Array<object>} descriptions of elements; see tree.js.
 */
export function describeAnswer(source, steps) {
  const text = normalize(source);
  const { hidden, formulas } = hide(text);
  const lines = [0, ...Array.from(hidden.matchAll(/\n/g), ({ index }) => index + 1), hidden.length];
  const marks = new Marks(source, steps);
  let at = 0; // the end of what is described already
  let end = 0; // of the block

  const LEAVES = {
    text: ({ content }) => located(content, formulasAndText),
    code_inline: ({ content }) => [code(content)],
    fence: ({ content }) => [node("pre", {}, code(content.replace(/\n$/, "")))],
    hr: () => [node("hr", {})],
    inline: ({ children }) => described(children),
  };

  /** Descriptions of a list of tokens, in which tokens that open and close an element are around its content. */
  function described(tokens) {
    const open = [{ nodes: [] }];
    for (const token of tokens) {
      if (token.map) enter(token);
      if (token.nesting > 0) open.push({ token, nodes: [] });
      else if (token.nesting === 0) open.at(-1).nodes.push(...LEAVES[token.type](token));
      else open.at(-2).nodes.push(elementOf(open.pop()));
    }
    return open[0].nodes;
  }

  /** Go to the lines of a block, and behind what begins it. */
  function enter({ type, map, info, markup }) {
    at = Math.max(at, lines[map[0] + (type === "fence" ? 1 : 0)]);
    end = lines[map[1]] ?? hidden.length;
    if (type === "list_item_open") at = hidden.indexOf(info + markup, at) + info.length + markup.length;
  }

  /** Descriptions of content, by lines where their indentation was removed. */
  function located(content, describe) {
    const start = hidden.indexOf(content, at);
    if (start >= 0 && start + content.length <= end) return describe(start, (at = start + content.length));
    const parts = content.split(/(\n|^[ \t]+)/m).filter(Boolean);
    return parts.length > 1 ? parts.flatMap((part) => located(part, describe)) : [content];
  }

  const code = (content) => node("code", {}, ...located(content, (from, to) => marks.plain(from, to)));

  function formulasAndText(from, to) {
    const nodes = [];
    while (formulas[0]?.start < to) {
      const { start, end, latex, display } = formulas.shift();
      if (start < from) continue; // it was code
      nodes.push(...marks.plain(from, start), marks.formula(end, formula(latex, display), display));
      from = end;
    }
    return [...nodes, ...marks.plain(from, to)];
  }

  return described(MARKDOWN.parse(hidden, {}));
}

/** A text with formulas and signs hidden, and the formulas with their offsets. */
function hide(text) {
  const formulas = [];
  const hidden = text.replaceAll(HIDDEN, (match, ...rest) => {
    const [start, , { inline, display, dollars }] = rest.slice(-3);
    const latex = inline ?? display ?? dollars;
    if (latex === undefined) return /^[ \t]*[`~]/.test(match) ? match : match === "•" ? "*" : "x".repeat(match.length);
    if (!latex.trim()) return match;
    formulas.push({ start, end: start + match.length, latex, display: inline === undefined });
    return match[0] + "x".repeat(match.length - 2) + match.at(-1); // its ends are punctuation for Markdown, too
  });
  return { hidden, formulas };
}

function elementOf({ token: { type, tag, info, markup }, nodes }) {
  if (type === "heading_open") return node(`h${Math.min(HEADING_LEVEL + markup.length, HEADING_LEVEL_MAX)}`, {}, ...nodes);
  if (type === "list_item_open" && info) return node(tag, { value: info }, ...nodes);
  return node(tag, type === "bullet_list_open" && markup === "-" ? { class: "dash" } : {}, ...nodes);
}
