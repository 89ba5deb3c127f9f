// Describes an answer's text as elements. Model output becomes text nodes and formulas, never markup.

import { parseBlocks } from "./blocks.js";
import { Marks } from "./marks.js";
import { parseSpans } from "./spans.js";
import { formula, node } from "./tree.js";

const HEADING_LEVEL = 2; // of the question
const HEADING_LEVEL_MAX = 6;
const RUNS = { 1: ["em"], 2: ["strong"], 3: ["strong", "em"] };

/**
 * @param {string} text
 * @param {Array<{expression: string, computed: string, ok: boolean}>} steps checked equations in text order.
 * @returns {Array<object>} descriptions of elements; see tree.js.
 */
export function describeAnswer(text, steps) {
  const marks = new Marks(text, steps);
  const blocks = (found) => found.map((block) => BLOCKS[block.kind](block));
  const spans = (found) => found.flatMap((span) => SPANS[span.kind](span));
  const content = ({ start, end }) => spans(parseSpans(text, start, end));

  const BLOCKS = {
    paragraph: (block) => node("p", {}, ...content(block)),
    heading: (block) => node(`h${Math.min(HEADING_LEVEL + block.level, HEADING_LEVEL_MAX)}`, {}, ...content(block)),
    code: ({ start, end }) => node("pre", {}, node("code", {}, ...marks.plain(start, end))),
    rule: () => node("hr", {}),
    list: ({ marker, items }) => node(marker === "number" ? "ol" : "ul", { class: marker }, ...items.map(item)),
  };
  const SPANS = {
    text: ({ start, end }) => marks.plain(start, end),
    code: ({ start, end }) => node("code", {}, ...marks.plain(start, end)),
    formula: ({ end, latex, display }) => marks.formula(end, formula(latex, display), display),
    emphasis: ({ run, children }) => RUNS[run.length].reduceRight((inner, name) => [node(name, {}, ...inner)], spans(children)),
  };
  function item({ number, blocks: inner }) {
    return node("li", number ? { value: number } : {}, ...blocks(inner));
  }
  return blocks(parseBlocks(text));
}
