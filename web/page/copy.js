// Copies text to the clipboard.

import { element } from "./element.js";

/** Copy a text. Over plain HTTP from another machine the browser has no clipboard interface, but the older command. */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const box = element("textarea", { class: "unseen" }, text);
  const focused = document.activeElement;
  document.body.append(box);
  box.select();
  const copied = document.execCommand("copy");
  box.remove();
  focused?.focus();
  if (!copied) throw new Error("not copied");
}
