"""Test cases of arithmetic, from tests/data.

`arithmetic_cases.json` has, by what they are about:

- final_answers: texts with the answer that a person reads in them, "None" if there is none. Those of models
  are the last lines of real outputs, right and wrong, for questions of GSM8K's training split and SVAMP. The
  prompts asked for steps, a box, ####, a final line, a short calculation, or nothing. Truncated outputs ran
  out of tokens, and long lines are cut at the beginning.
- right: texts whose one equation is right, with its left side and its result as written.
- wrong: texts whose one equation is wrong, with its claimed and its computed result.
- unread: texts without an equation, or with one that may be meant otherwise.
- readings: texts with a value, whether they verify it, and how many sentences are not read.
- pending: texts that end in an expression and an equals sign, with the pending result; not_pending: those
  that have none.
- numbers: texts that are one number, with its value; not_numbers: texts that are not.
- stated: questions, answers, and the value that each states.

`stated_values.jsonl` has 657 more of these, answers of four models to questions of SVAMP and GSM8K (both
MIT), to sums, and to questions that ask for no number, labelled by hand. The rule was made on the part
"design"; those of "test" were labelled before it was tried on them.
"""

import json
from pathlib import Path

_DATA = Path(__file__).parents[2] / "data"
_CASES = json.loads((_DATA / "arithmetic_cases.json").read_text("utf-8"))
CASES = {name: [case for cases in about.values() for case in cases] for name, about in _CASES.items()}
CASES["final_answers"] += [["12^" + "9" * 900, "None"], ["9" * 10_000, "None"]]
CASES["not_pending"].append("11" + " + 11" * 200 + " =")
CASES["not_numbers"].append("1" * 5000)
STATED_VALUES = [json.loads(line) for line in (_DATA / "stated_values.jsonl").read_text("utf-8").splitlines()]
