// What is said about an answer: its final value, what was checked, the votes, and statistics.

import { element } from "./element.js";

const LONG_VALUE_CHARS = 12; // longer values are shown in a smaller font
const LIKELIHOODS = [[0.7, "likely right"], [0.4, "may be right"], [0, "probably wrong"]];

/** Final value, badges and reason; nothing for an answer that states no value, and has no equations. */
export function resultNodes(answer) {
  const { value, steps, tally } = answer;
  const size = value?.length > LONG_VALUE_CHARS ? "value long" : "value";
  const nodes = [];
  if (shownValue(answer)) {
    const shown = value === null ? ["span", { class: "none" }] : ["strong", { class: size }];
    nodes.push(element(...shown, shownValue(answer)));
  }
  if (tally) nodes.push(element("span", { class: isAgreed(tally) ? "badge ok" : "badge" }, agreement(tally)));
  if (steps.length) nodes.push(element("span", { class: "badge" }, verdict(answer)));
  const reason = reasons(answer);
  return reason ? [...nodes, element("span", { class: "small" }, reason)] : nodes;
}

/** The same in one sentence, for a screen reader. */
export function resultSentence(answer) {
  const { steps, tally } = answer;
  const parts = [shownValue(answer), tally && agreement(tally), steps.length && verdict(answer)].filter(Boolean).join(", ");
  const sentence = [parts, reasons(answer)].filter(Boolean).join(": ");
  return sentence && `${sentence}. `;
}

/** The value, or why it is withheld. */
function shownValue({ value, sure, stop_reason }) {
  if (stop_reason === "length") return "Cut off";
  return value ?? (sure === false ? "Not sure" : "");
}

const reasons = (answer) => [answer.steps.length ? reason(answer) : "", likelihood(answer)].filter(Boolean).join("; ");

/** The confidence in words. */
function likelihood({ value, confidence }) {
  if (value === null || confidence == null) return ""; // it is not calibrated for this model
  return LIKELIHOODS.find(([least]) => confidence >= least)[1];
}

/** What was checked, and what that found. */
function verdict({ steps }) {
  const equations = steps.length === 1 ? "1 equation" : `${steps.length} equations`;
  const wrong = steps.filter(({ ok }) => !ok).length;
  return wrong ? `${wrong} of ${equations} wrong` : `${equations} checked: arithmetic right`;
}

/** What keeps right equations from giving the value out of the question's numbers. */
function reason({ value, verified, grounded, steps }) {
  if (grounded || value === null || !steps.every(({ ok }) => ok)) return "";
  if (verified) return "some numbers are not in the question";
  const given = steps.some(({ claimed, computed }) => claimed === value || computed === value);
  return given ? "others could not be read" : "none gives this number";
}

/** Whether an answer is code, of which no number is the result, unless worked out of the question's numbers. */
export function isCode({ text, grounded }) {
  return /^[ \t]*(```|~~~)/m.test(text) && !grounded;
}

/** Values by descending votes; the object itself is unordered, since JavaScript sorts integer keys. */
const ranked = (tally) => Object.entries(tally?.votes ?? {}).sort(([, a], [, b]) => b - a);

/** How many answers agree so far. */
export function agreement(tally) {
  const [value, count] = ranked(tally)[0] ?? [];
  return count ? `${count} of ${tally.ended} agree on ${value}` : `${tally.ended} without a vote`;
}

/** Whether two thirds of several answers agree, or more. */
function isAgreed(tally) {
  const [[, count = 0] = []] = ranked(tally);
  return count > 1 && 3 * count >= 2 * tally.ended;
}

/** The values with their votes. */
export function tallyItems(tally) {
  return ranked(tally).map(([value, count]) => {
    const candidate = element("span", { class: "candidate" }, value);
    const bar = element("progress", { max: tally.ended, value: count, "aria-hidden": "true" });
    const share = element("span", { class: "small" }, `${count} of ${tally.ended}`);
    return element("li", {}, candidate, bar, share);
  });
}

/** How many answers there were, why some have no vote, and why there were no more. */
export function tallyNote(tally) {
  if (!tally) return "";
  const { asked, ended, votes } = tally;
  const none = ended - Object.values(votes).reduce((sum, count) => sum + count, 0);
  return [
    `${ended} answers`,
    none && `, ${none} without a vote: no number, a wrong sum, or cut off`,
    ended < asked && `; enough agree, so that no more of up to ${asked} were needed`,
  ].filter(Boolean).join("");
}

/** Token counts, rates and the model in a line. */
export function statsLine({ usage, timings, stop_reason, model, dropped_turns }) {
  const calculated = usage.completion_tokens - usage.sampled_tokens;
  const cached = usage.cached_tokens ? ` (${usage.cached_tokens} cached)` : "";
  const thought = usage.thinking_tokens ? `, ${usage.thinking_tokens} of them thoughts` : "";
  const stats = [
    `${usage.completion_tokens} tokens${calculated ? ` (${calculated} by the calculator)` : ""}${thought}`,
    `${Number(timings.decode_tokens_per_s).toFixed(1)} tokens/s`,
    `first token after ${Number(timings.first_token_s).toFixed(2)} s`,
    `${usage.prompt_tokens} prompt tokens${cached}`,
    model,
  ];
  if (stop_reason === "length") stats.push("cut off at the token limit");
  if (dropped_turns) stats.push(`no room for the first ${dropped_turns === 1 ? "turn" : `${dropped_turns} turns`}`);
  return stats.map((stat) => String(stat).replaceAll(" ", "\u00a0")).join("\u00a0· "); // lines break only between stats
}
