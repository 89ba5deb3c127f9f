// Elements made of text and of other elements, never of markup: what a model writes stays text.

/**
 * @param {string} name of the tag.
 * @param {Object<string, string|number>} attributes
 * @param {...(string|Node)} children strings become text nodes.
 * @returns {HTMLElement}
 */
export function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...children);
  return made;
}
