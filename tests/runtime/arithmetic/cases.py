"""Test cases of arithmetic, from tests/data.

`arithmetic_cases.json` has, by what they are about:

- final_answers: texts with the answer that a person reads in them, "None" if there is none. Those of models
  are the last lines of real outputs, right and wrong, for questions of GSM8K's training split and SVAMP. The
  prompts asked for steps, a box, ####, a final line, a short calculation, or nothing. Truncated outputs ran
  out of tokens, and long lines are cut at the beginning.
- right: texts whose one equation is right, with its left side and its result as written.
- wrong: texts whose one equation is wrong, with its claimed and its computed result.
- unread: texts without an equation, or with one that may be meant otherwise.
- pending: texts that end in an expression and an equals sign, with the pending result; not_pending: those
  that have none.
- standing_alone: questions, and whether nothing in them refers back.

`stated_values.jsonl` has answers with the value that each states, None if it states none; see
test_stated_values.py.
"""

import json
from pathlib import Path

_DATA = Path(__file__).parents[2] / "data"
_CASES = json.loads((_DATA / "arithmetic_cases.json").read_text("utf-8"))
_FINAL, RIGHT, WRONG, UNREAD, PENDING, _NOT_PENDING, STANDING_ALONE = (
    [case for cases in about.values() for case in cases] for about in _CASES.values()
)
FINAL_ANSWERS = [*_FINAL, ["12^" + "9" * 900, "None"], ["9" * 10_000, "None"]]
NOT_PENDING = [*_NOT_PENDING, "11" + " + 11" * 200 + " ="]
STATED_VALUES = [json.loads(line) for line in (_DATA / "stated_values.jsonl").read_text("utf-8").splitlines()]
