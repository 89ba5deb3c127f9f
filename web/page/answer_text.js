// An answer's text as elements: Markdown, formulas and the server's marks. Model output becomes text nodes, formulas
// and a few kinds of elements, never HTML.
//
// markdown-it parses the text, without links, images and HTML. Marks, formulas and the signs of sums go through it as
// characters of the private use areas, which it takes for letters.

import "./markdown-it/markdown-it.umd.min.js"; // a script for all module systems; it sets a global variable
import { element } from "./element.js";
import { formulaNode } from "./formula.js";

const RULES = ["fence", "heading", "hr", "list", "backticks", "emphasis", "escape"];
const MARKDOWN = globalThis.markdownit("zero", { maxNesting: 100 }).enable(RULES);
const HEADING_LEVEL = 2; // of the question

const PRIVATE = /[\uE000-\uE001\u{F0000}-\u{10FFFF}]/gu;
const SIGNS = { "*": "\uE000", "+": "\uE001" };
const FORMULAS = 0xf0000; // and its index
const MARKS = 0x100000; // and 3 times the index of a step, and which of these:
const [START, RESULT, END] = [0, 1, 2];
const PLACEHOLDER = /([\u{F0000}-\u{10FFFF}])/u;
const MARK = /[\u{100000}-\u{10FFFF}]/gu;

const HIDDEN = new RegExp([
  /(?<code>^[ \t]*(?<fence>```+|~~~+)[^]*?(?:^[ \t]*\k<fence>|(?![^]))|(?<ticks>`+)(?!`)[^]{1,2000}?(?<!`)\k<ticks>(?!`)|`+)/,
  /\\\((?<inline>[^]{1,2000}?)\\\)|\\\[(?<display>[^]{1,2000}?)\\\]|\$\$(?<dollars>[^]{1,2000}?)\$\$/,
  /(?<=[\dA-Za-z)\]}])\*+(?=[\dA-Za-z(])/, // 3*x, 2**3
  /(?<=[\d)\]}%][^\S\n]{0,8})\*(?=[^\S\n]{0,8}[\d([{$€£\\])/, // 2 *(3 + 4)* 5
  /^[ \t]*(?:\+(?=[ \t])|\*(?=[-\d.,+*/×÷=()$%^ \t\uDBC0-\uDFFF]+$)(?=.*\d))/, // a line that goes on from the one above
].map(({ source }) => source).join("|"), "gm");

/**
 * Make an element show a text. Blocks that are the same already stay, so that a selection in them survives.
 *
 * @param {HTMLElement} box
 * @param {string} source
 * @param {Array<{start: number, result: number, end: number, computed: string, ok: boolean}>} steps checked sums, with
 *   the characters before their parts.
 */
export function showText(box, source, steps) {
  const blocks = [...new Answer(source, steps).element.childNodes];
  const before = [...box.childNodes];
  blocks.forEach((block, index) => {
    if (!before[index]) box.append(block);
    else if (!before[index].isEqualNode(block)) before[index].replaceWith(block);
  });
  before.slice(blocks.length).forEach((block) => block.remove());
}

class Answer {
  element = element("div", {});
  #formulas = [];
  #steps;
  #open = null; // the step whose mark has begun
  #inResult = false;

  constructor(source, steps) {
    this.#steps = steps;
    const text = withMarks(source, steps).replaceAll(HIDDEN, (...match) => this.#hide(match[0], match.at(-1)));
    this.#build(MARKDOWN.parse(text, {}), this.element);
  }

  /** What stands in Markdown for a formula, or for signs. */
  #hide(source, { code, inline, display, dollars }) {
    const latex = inline ?? display ?? dollars;
    if (code !== undefined || latex?.trim() === "") return source;
    if (latex === undefined) return source.replaceAll(/[*+]/g, (sign) => SIGNS[sign]);
    const index = this.#formulas.push({ source, latex, display: inline === undefined }) - 1;
    return String.fromCodePoint(FORMULAS + index);
  }

  #build(tokens, parent) {
    const open = [parent];
    for (const token of tokens) {
      const box = open.at(-1);
      if (token.nesting < 0) open.pop();
      else if (token.type === "inline") this.#build(token.children, box);
      else if (token.type === "text") this.#write(token.content, box, false);
      else {
        const created = elementOf(token);
        box.append(created);
        if (token.nesting > 0) open.push(created);
        else this.#write(token.content.replace(/\n$/, ""), created.querySelector("code") ?? created, true);
      }
    }
  }

  /** Append text with its formulas and marks. */
  #write(text, parent, isCode) {
    let box = null; // the element for the next piece, made when there is one
    const append = (...nodes) => (box ??= this.#open ? stepElement(parent, this.#open) : parent).append(...nodes);
    for (const piece of text.split(PLACEHOLDER).filter(Boolean)) {
      const formula = this.#formulas[piece.codePointAt(0) - FORMULAS];
      if (piece.codePointAt(0) >= MARKS) {
        const ended = this.#mark(piece);
        if (ended) (box ?? parent).append(...signs(ended));
        if (ended || !this.#inResult) box = null;
      } else if (formula) {
        if (isCode) this.#write(formula.source, parent, true);
        else this.#writeFormula(formula, parent);
        box = null;
      } else {
        const plain = piece.replaceAll(SIGNS["*"], "*").replaceAll(SIGNS["+"], "+");
        append(this.#inResult && !this.#open.ok ? element("del", {}, plain) : plain);
      }
    }
  }

  #writeFormula({ latex, display }, parent) {
    const [begun, ended] = [new Set(this.#open ? [this.#open] : []), []];
    for (const mark of latex.match(MARK) ?? []) {
      const step = this.#mark(mark);
      if (step) ended.push(step);
      else begun.add(this.#open);
    }
    const node = formulaNode(latex.replaceAll(MARK, ""), display);
    if (!begun.size) return parent.append(node);
    const box = stepElement(parent, [...begun].find(({ ok }) => !ok) ?? [...begun][0]);
    box.classList.toggle("display", display);
    box.append(node, ...ended.flatMap(signs));
  }

  /** Go past a mark; returns the step that it ends, if any. */
  #mark(character) {
    const code = character.codePointAt(0) - MARKS;
    const step = this.#steps[Math.floor(code / 3)];
    this.#inResult = code % 3 === RESULT;
    this.#open = code % 3 === END ? null : step;
    return this.#open ? null : step;
  }
}

/** The text with characters where steps begin, where their results do, and where they end. */
function withMarks(source, steps) {
  const characters = Array.from(source.replaceAll(PRIVATE, "\ufffd"));
  steps.forEach(({ start, result, end }, index) => {
    const mark = (part) => String.fromCodePoint(MARKS + 3 * index + part);
    characters[start] = mark(START) + characters[start];
    characters[result] = mark(RESULT) + characters[result];
    characters[end - 1] += mark(END);
  });
  return characters.join("");
}

function elementOf(token) {
  if (token.type === "fence") return element("pre", {}, element("code", {}));
  if (token.type === "heading_open") return element(`h${Math.min(HEADING_LEVEL + token.markup.length, 6)}`, {});
  const start = token.attrGet("start");
  return element(token.tag, start === null ? {} : { start });
}

/** An element for a part of a step. */
function stepElement(parent, { ok, computed }) {
  const title = ok ? "This sum is right" : `This sum is wrong: ${computed}`;
  const created = element("span", { class: ok ? "step ok" : "step wrong", title });
  parent.append(created);
  return created;
}

/** What follows a step: for screen readers, whether it is right; otherwise the right value. */
function signs({ ok, computed }) {
  const label = ok ? "this sum is right" : `this sum is wrong: ${computed}`;
  const sign = element("span", { role: "img", "aria-label": label });
  return ok ? [sign] : [" ", element("ins", {}, computed), sign];
}
