// What the page says about an answer, in words.

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

/** The value that the server read in the text, or why it gives none. Of code, no number is the result. */
export function valueText({ value, sure, stop_reason, text }) {
  if (stop_reason === "length") return "Cut off";
  if (/^[ \t]*(```|~~~)/m.test(text)) return "";
  return value ?? (sure === false ? "Not sure" : "");
}

/** Which sums the server has checked. That they are the right sums, it cannot tell. */
export function checksText({ steps, unread = 0 }) {
  const wrong = steps.filter(({ ok }) => !ok).length;
  const equations = counted(unread, "equation");
  if (!steps.length) return unread ? `${equations} not checked.` : "";
  const checked = `${counted(steps.length, "sum")} checked${wrong ? `, ${wrong} wrong` : ""}`;
  return `${checked}; ${unread ? `${equations} and the reasoning were` : "the reasoning was"} not.`;
}

/** How a vote stands. */
export function votesText(tally) {
  if (!tally) return "";
  const ranked = Object.entries(tally.votes).sort(([, a], [, b]) => b - a); // JavaScript sorts keys that are integers
  const says = (count, value) => `${count === 1 ? "says" : "say"} ${value}`;
  const others = ranked.slice(1).map(([value, count]) => `, ${count} ${says(count, value)}`);
  if (!ranked.length) return `${counted(tally.ended, "answer")} without a vote`;
  const [[value, count]] = ranked;
  return `${count} of ${tally.ended} answers ${says(count, value)}${others.join("")}`;
}

/** The same in a sentence, for a screen reader. */
export function resultSentence(answer) {
  const parts = [valueText(answer), votesText(answer.tally), checksText(answer)].filter(Boolean);
  return parts.map((part) => `${part.replace(/\.$/, "")}. `).join("");
}

/** Token counts, rates and the model in a line. */
export function statsText({ usage, timings, model, confidence, stop_reason, dropped_turns }) {
  return [
    counted(usage.completion_tokens, "token"),
    `${Number(timings.decode_tokens_per_s).toFixed(1)} tokens/s`,
    `first token after ${timings.first_token_s.toFixed(2)} s`,
    model,
    confidence != null && `confidence ${Math.round(100 * confidence)} %`,
    stop_reason === "length" && "cut off at the token limit",
    dropped_turns && `no room for the first ${dropped_turns === 1 ? "turn" : `${dropped_turns} turns`}`,
  ].filter(Boolean).map((stat) => stat.replaceAll(" ", "\u00a0")).join(" · "); // lines break between them only
}
