// Majority votes, a port of runtime/engine/majority_vote.py. effort.js holds the rules of runtime/effort.py, and the
// examples of runtime/prompt/worked_examples.py.

import effort from "./effort.js";
import { hasNumber } from "./grounding.js";

export const { temperature: VOTE_TEMPERATURE } = effort;

/** Messages that stand before a question which is answered several times. */
export const EXAMPLES = effort.examples.flatMap(([question, answer]) => [
  { role: "user", content: question },
  { role: "assistant", content: answer },
]);

/**
 * How many answers are sampled at most, and how certain the majority must be. Without a number in the question there
 * is nothing to vote on.
 *
 * @param {string} name low, medium or high.
 * @param {string} question
 * @returns {{answers: number, certainty: number}}
 */
export function votingRule(name, question) {
  if (!Object.hasOwn(effort.rules, name)) throw new RangeError(`effort must be low, medium or high, not ${name}`);
  return effort.rules[hasNumber(question) ? name : "low"];
}

/** An answer that was cut short or has a wrong equation does not vote. */
const isVote = ({ value, stop_reason, steps }) =>
  value !== null && stop_reason === "end" && steps.every(({ ok }) => ok);

/** Values with their answers' count: the most first, at a tie the most verified. */
function rankValues(answers) {
  const ranked = new Map();
  for (const { value, verified } of answers) {
    const [votes, checked] = ranked.get(value) ?? [0, 0];
    ranked.set(value, [votes + 1, checked + verified]);
  }
  return [...ranked].sort(([, [a, checkedA]], [, [b, checkedB]]) => b - a || checkedB - checkedA);
}

/** Votes of the answers so far. */
export function countVotes(answers, rule) {
  const votes = rankValues(answers.filter(isVote)).map(([value, [count]]) => [value, count]);
  return { asked: rule.answers, ended: answers.length, votes: Object.fromEntries(votes) };
}

/** Whether no more answers are needed: the majority is certain, or the missing ones cannot change it. */
export function isDecided({ asked, ended, votes }, { certainty }) {
  const [first = 0, second = 0] = Object.values(votes).sort((a, b) => b - a);
  return ended === asked || first > second + asked - ended || majorityCertainty(first, second) >= certainty;
}

/** Probability that the value with `first` votes is likelier than the one with `second`. */
export function majorityCertainty(first, second) {
  const trials = first + second + 1;
  let [ways, sum] = [1, 0];
  for (let at = 0; at <= first; at++) {
    sum += ways;
    ways *= (trials - at) / (at + 1);
  }
  return sum / 2 ** trials;
}

/** Calibrated probability that the value of a vote is right, as in runtime/answer.py; null if there is none. */
export function confidence({ value, stop_reason, grounded, tally }) {
  if (value === null || stop_reason !== "end" || !tally) return null;
  const [first = 0, second = 0] = Object.values(tally.votes).sort((a, b) => b - a);
  const { intercept, certainty, grounded: ofGrounded } = effort.confidence;
  const logOdds = intercept + certainty * majorityCertainty(first, second) + (grounded ? ofGrounded : 0);
  return 1 / (1 + Math.exp(-logOdds));
}

/**
 * The best answer of the winning value, as in the engine, which also knows how likely each is. Answers that are no
 * votes count only if there are no votes.
 */
export function selectWinner(answers, rule) {
  const candidates = answers.some(isVote) ? answers.filter(isVote) : answers;
  const [[first]] = rankValues(candidates);
  const winners = candidates.filter(({ value }) => value === first);
  const winner = winners.find(({ verified }) => verified) ?? winners[0];
  const total = (name) => answers.reduce((sum, { usage }) => sum + usage[name], 0);
  const tokens = Object.fromEntries(["completion_tokens", "sampled_tokens"].map((name) => [name, total(name)]));
  return { ...winner, usage: { ...winner.usage, ...tokens }, tally: countVotes(answers, rule) };
}
