// What is said about an answer: its final value, whether it is verified, the votes, and statistics.

import { element } from "./element.js";

const LONG_VALUE_CHARS = 12; // longer values are shown in a smaller font

/** Final value, badge and reason. */
export function resultNodes({ value, verified, steps }) {
  const size = value?.length > LONG_VALUE_CHARS ? "value long" : "value";
  const none = element("span", { class: "none" }, "No final number");
  const shown = value === null ? none : element("strong", { class: size }, value);
  const [style, label] = verified ? ["badge ok", "✓ verified"] : ["badge", "not verified"];
  const reason = element("span", { class: "small" }, verificationReason(value, verified, steps));
  return [shown, element("span", { class: style }, label), reason];
}

/** The same in one sentence, for a screen reader. */
export function resultSentence({ value, verified, steps }) {
  const label = verified ? "verified" : "not verified";
  return `${value ?? "No final number"}, ${label}: ${verificationReason(value, verified, steps)}.`;
}

function verificationReason(value, verified, steps) {
  const equations = steps.length === 1 ? "1 equation" : `${steps.length} equations`;
  const wrong = steps.filter((step) => !step.ok).length;
  if (!steps.length) return "no equation to check";
  if (wrong) return `${wrong} of ${equations} wrong`;
  return verified || value === null ? `${equations} checked` : `${equations} checked, none gives this number`;
}

/** Values by descending votes; the object itself is unordered, since JavaScript sorts integer keys. */
export function tallyItems(tally) {
  const votes = Object.entries(tally?.votes ?? {}).sort(([, a], [, b]) => b - a);
  return votes.map(([value, count]) => {
    const candidate = element("span", { class: "candidate" }, value);
    const bar = element("progress", { max: tally.ended, value: count, "aria-hidden": "true" });
    const share = element("span", { class: "small" }, `${count} of ${tally.ended}`);
    return element("li", {}, candidate, bar, share);
  });
}

/** Token counts, rates and the model in a line. */
export function statsLine({ usage, timings, stop_reason, model, dropped_turns }) {
  const calculated = usage.completion_tokens - usage.sampled_tokens;
  const cached = usage.cached_tokens ? ` (${usage.cached_tokens} cached)` : "";
  const stats = [
    `${usage.completion_tokens} tokens${calculated ? ` (${calculated} by the calculator)` : ""}`,
    `${Number(timings.decode_tokens_per_s).toFixed(1)} tokens/s`,
    `first token after ${Number(timings.first_token_s).toFixed(2)} s`,
    `${usage.prompt_tokens} prompt tokens${cached}`,
    model,
  ];
  if (stop_reason === "length") stats.push("cut off at the token limit");
  if (dropped_turns) stats.push(`no room for the first ${dropped_turns === 1 ? "turn" : `${dropped_turns} turns`}`);
  return stats.map((stat) => String(stat).replaceAll(" ", "\u00a0")).join("\u00a0· "); // lines break only between stats
}
