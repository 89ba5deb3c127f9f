// Lets the keyboard scroll what is too wide: not every browser does if it cannot be focused.

const SCROLLING = "pre, .katex-display";
const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => keepReachable(target)));

/** Keep an answer reachable while it or the window changes its size. */
export function watchScrolling(answer) {
  sizes.observe(answer);
}

/** Make an answer, and what scrolls in it, focusable exactly where it is too wide. */
export function keepReachable(answer) {
  const parts = [answer, ...answer.querySelectorAll(SCROLLING)];
  const wide = parts.map((part) => part.scrollWidth > part.clientWidth); // all are read before one is written
  parts.forEach((part, index) => {
    const attributes = { tabindex: "0", role: "group", "aria-label": "Scrolls sideways" };
    for (const [name, value] of Object.entries(attributes)) {
      if (wide[index]) part.setAttribute(name, value);
      else part.removeAttribute(name);
    }
  });
}
