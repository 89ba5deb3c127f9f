// Creates elements from text and other elements, never from markup: model output cannot become HTML.

/**
 * @param {string} name tag name.
 * @param {Object<string, string|number>} attributes
 * @param {...(string|Node)} children strings become text nodes.
 * @returns {HTMLElement}
 */
export function element(name, attributes, ...children) {
  const created = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) created.setAttribute(attribute, value);
  created.append(...children);
  return created;
}

/** A button that calls a function. */
export function button(label, attributes, onClick) {
  const created = element("button", { type: "button", ...attributes }, label);
  created.addEventListener("click", onClick);
  return created;
}
