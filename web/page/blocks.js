// Splits an answer's text into blocks: paragraphs, headings, lists, code and rules. This is a small part of
// Markdown, without links, images and markup, and one that keeps sums whole: what looks like a list within a
// formula belongs to the formula, and the page shows a dash before the items of a list with dashes.

import { formulaEnd } from "./spans.js";

const LEVELS_MAX = 6; // of nested lists
const FENCE = /^[ \t]*(```+|~~~+)/;
const HEADING = /^[ \t]*(#{1,6})[ \t]+(?=\S)/;
const RULE = /^[ \t]*(?:-{3,}|\*{3,}|_{3,})[ \t]*$/;
const ITEM = /^[ \t]*(?:([-*•])|(\d{1,9})[.)])[ \t]+(?=\S)/;
const PRODUCT = /^[ \t]*\*[\d\s.,+*/×÷=()$%^-]+$/; // goes on from the line above

/**
 * @param {string} text
 * @returns {Array<object>} blocks in text order, by their `kind`. "paragraph" and "code" have the offsets `start`
 *   and `end` of their text, "heading" also a `level`, "rule" has nothing more, and "list" a `marker` (dash, bullet
 *   or number) and `items`, each with its `number` and `blocks`.
 */
export function parseBlocks(text) {
  let end = -1;
  const lines = text.split("\n").map((line) => {
    const start = end + 1;
    end = start + line.length;
    return { origin: start, start, end };
  });
  return readBlocks({ text, level: 0 }, lines);
}

function readBlocks(state, lines) {
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    const [block, next] = isBlank(state, lines[at]) ? [null, at + 1] : readBlock(state, lines, at);
    if (block) blocks.push(block);
    at = next;
  }
  return blocks;
}

/** The block that starts at a line, and the index of the line after it. */
function readBlock(state, lines, at) {
  const source = content(state, lines[at]);
  if (FENCE.test(source)) return readCode(state, lines, at);
  if (HEADING.test(source)) return [readHeading(lines[at], HEADING.exec(source)), at + 1];
  if (RULE.test(source)) return [{ kind: "rule" }, at + 1];
  return startsList(state, source) ? readList(state, lines, at) : readParagraph(state, lines, at);
}

const content = ({ text }, { start, end }) => text.slice(start, end);
const isBlank = (state, line) => !content(state, line).trim();
const isItem = (source) => ITEM.test(source) && !RULE.test(source) && !PRODUCT.test(source);
const startsList = ({ level }, source) => level < LEVELS_MAX && isItem(source);
const startsBlock = (state, source) => [FENCE, HEADING, RULE].some((start) => start.test(source)) || startsList(state, source);

function readHeading({ start, end }, [prefix, { length: level }]) {
  return { kind: "heading", level, start: start + prefix.length, end };
}

/** Code between fences; the answer's end closes the last fence. */
function readCode(state, lines, at) {
  const [, fence] = FENCE.exec(content(state, lines[at]));
  const closes = (line) => content(state, line).trim().startsWith(fence);
  const found = lines.findIndex((line, index) => index > at && closes(line));
  const last = found < 0 ? lines.length : found;
  const start = Math.min(lines[at].end + 1, state.text.length);
  return [{ kind: "code", start, end: Math.max(start, lines[last - 1].end) }, last + 1];
}

function readParagraph(state, lines, at) {
  const { text } = state;
  const start = lines[at].start + content(state, lines[at]).search(/\S/);
  let next = at;
  do {
    const end = formulaEnd(text, lines[next].start, lines[next].end);
    while (next < lines.length && lines[next].start <= end) next++; // to the line on which its formulas end
  } while (next < lines.length && !isBlank(state, lines[next]) && !startsBlock(state, content(state, lines[next])));
  return [{ kind: "paragraph", start, end: lines[next - 1].end }, next];
}

function readList(state, lines, at) {
  const { marker } = itemAt(state, lines[at]);
  const items = [];
  for (;;) {
    let first = at;
    while (first < lines.length && isBlank(state, lines[first])) first++;
    const item = first < lines.length ? itemAt(state, lines[first]) : null;
    if (item?.marker !== marker) return [{ kind: "list", marker, items }, at];
    at = itemEnd(state, lines, first);
    const inner = [{ ...lines[first], start: item.start }, ...lines.slice(first + 1, at)];
    items.push({ number: item.number, blocks: readBlocks({ ...state, level: state.level + 1 }, inner) });
  }
}

function itemAt(state, line) {
  const source = content(state, line);
  if (!isItem(source)) return null;
  const [prefix, sign, number] = ITEM.exec(source);
  const marker = number ? "number" : sign === "-" ? "dash" : "bullet";
  return { marker, number: Number(number ?? 0), start: line.start + prefix.length };
}

/** Index of the line after an item: the lines that are indented further belong to it. */
function itemEnd(state, lines, first) {
  const column = indentation(state, lines[first]);
  let next = first + 1;
  for (let at = next; at < lines.length; at++) {
    if (isBlank(state, lines[at])) continue;
    if (indentation(state, lines[at]) <= column) break;
    next = at + 1;
  }
  return next;
}

const indentation = (state, line) => line.start - line.origin + content(state, line).search(/\S/);
