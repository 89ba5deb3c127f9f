// Keeps the newest turn in view while it grows: its end, or its beginning once it is higher than the window.

const MARGIN_PX = 12;
const MOVED_PX = 4; // more than that is the reader's own scrolling

let followed = null;
let position = 0; // where the page was scrolled to

/** Follow the growth of a list of turns. */
export function watchTurns(list) {
  new ResizeObserver(() => {
    if (Math.abs(scrollY - position) > MOVED_PX) followed = null;
    if (followed) scroll();
  }).observe(list);
}

/** Scroll to a turn, and follow it until the reader scrolls; null follows none. */
export function follow(turn) {
  followed = turn;
  if (turn) scroll();
}

function scroll() {
  const beginning = scrollY + followed.getBoundingClientRect().top - MARGIN_PX;
  scrollTo(0, Math.min(beginning, document.documentElement.scrollHeight - innerHeight));
  position = scrollY;
}
