// Descriptions of elements as plain objects, and the changes that make the page equal to them. What is equal
// already stays as it is, so that a selection survives while an answer grows.

import { element } from "./element.js";
import { formulaNode } from "./formula.js";

const shown = new WeakMap(); // the descriptions of an element's children

/**
 * Description of an element. Besides these, a string describes text, and `formula()` a formula.
 *
 * @param {string} name
 * @param {Object<string, string|number>} attributes
 * @param {...(string|object)} children
 */
export function node(name, attributes, ...children) {
  return { name, attributes, children };
}

/** Description of a formula. */
export function formula(latex, display) {
  return { latex, display };
}

/**
 * Make the children of an element equal to descriptions.
 *
 * @param {HTMLElement} parent only this function changes its children.
 * @param {Array<string|object>} wanted
 */
export function update(parent, wanted) {
  const before = shown.get(parent) ?? [];
  wanted.forEach((child, index) => {
    const current = parent.childNodes[index];
    if (!current) parent.append(create(child));
    else if (!adapt(current, before[index], child)) current.replaceWith(create(child));
  });
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
  shown.set(parent, wanted);
}

/** Whether a child is equal to its new description, if necessary after changes. */
function adapt(current, before, wanted) {
  if (typeof wanted === "string" || typeof before === "string") return before === wanted || adaptText(current, before, wanted);
  if (wanted.latex !== undefined) return before.latex === wanted.latex && before.display === wanted.display;
  if (before.name !== wanted.name || !isSame(before.attributes, wanted.attributes)) return false;
  update(current, wanted.children);
  return true;
}

function adaptText(current, before, wanted) {
  if (typeof wanted !== typeof before || !wanted.startsWith(before)) return false;
  current.appendData(wanted.slice(before.length));
  return true;
}

const isSame = (left, right) => JSON.stringify(left) === JSON.stringify(right);

function create(wanted) {
  if (typeof wanted === "string") return document.createTextNode(wanted);
  if (wanted.latex !== undefined) return formulaNode(wanted.latex, wanted.display);
  const created = element(wanted.name, wanted.attributes);
  update(created, wanted.children);
  return created;
}
