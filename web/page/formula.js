// Typesets formulas with KaTeX, within limits: a formula is model output, which may be hostile or nonsense.

import "./katex/katex.min.js"; // a script for all module systems; it sets the global variable `katex`

const OPTIONS = {
  trust: false, // no links, images, classes or styles
  maxExpand: 500, // of macros
  maxSize: 20, // em
  throwOnError: false, // a formula with a mistake is shown as its source
  strict: "ignore",
  errorColor: "var(--wrong)",
};
const NODES_MAX = 20_000;
const DEPTH_MAX = 200; // nesting deeper than that makes browsers slow
const trees = new Map(); // by source: a growing answer shows its formulas again and again

/**
 * @param {string} latex
 * @param {boolean} display whether it stands on a line of its own.
 * @returns {Node} the formula; its source where it is too large, or KaTeX fails.
 */
export function formulaNode(latex, display) {
  const key = `${display} ${latex}`;
  if (!trees.has(key)) trees.set(key, typeset(latex, display));
  const node = trees.get(key)?.toNode() ?? document.createTextNode(latex);
  for (const svg of node.querySelectorAll?.("[data-style]") ?? []) svg.style.cssText = svg.dataset.style;
  return node;
}

function typeset(latex, display) {
  try {
    const tree = katex.__renderToDomTree(latex, { ...OPTIONS, displayMode: display });
    prepare(tree, { nodes: 0 }, 0);
    return tree;
  } catch {
    return null;
  }
}

/** Check the size of a tree, and put style attributes, which the page's policy blocks, where formulaNode() finds them. */
function prepare(tree, count, depth) {
  if (++count.nodes > NODES_MAX || depth > DEPTH_MAX) throw new RangeError("the formula is too large");
  if (tree.attributes?.style) {
    tree.attributes["data-style"] = tree.attributes.style;
    delete tree.attributes.style;
  }
  for (const child of tree.children ?? []) prepare(child, count, depth + 1);
}
