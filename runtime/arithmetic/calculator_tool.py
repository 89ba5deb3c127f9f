"""The calculator as a tool that a model calls: its description, and the result of a call."""

import json
import re
from typing import Any

from .expression import evaluate
from .final_answer import format_number
from .lexer import blank_markup
from .units import AmbiguityError

NAME = "calculator"
DESCRIPTION = "Calculates an arithmetic expression exactly."
EXPRESSION_CHARS_MAX = 256
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "expression": {
            "type": "string",
            "description": "Numbers, + - * / ^, % and parentheses, such as (12.5 + 3) * 4.",
            "minLength": 1,
            "maxLength": EXPRESSION_CHARS_MAX,
        }
    },
    "required": ["expression"],
    "additionalProperties": False,
}
_CHARACTERS = re.compile(r"[-0-9.,+*/^%()\s]*")
_NO_EXPRESSION = "it must have only numbers, + - * / ^, % and parentheses"
_MALFORMED = "it is malformed or ambiguous"


def call_calculator(arguments: str) -> str:
    """Result of a call: the exact value, as format_number() writes it, or one line that begins with "error:".

    Args:
        arguments: a JSON object, as text; a model may have written anything into it.
    """
    match json.loads(arguments):
        case {"expression": str(expression), **others} if not others:
            return _calculate(expression)
    return 'error: the arguments must be {"expression": "…"}'


def _calculate(expression: str) -> str:
    if len(expression) > EXPRESSION_CHARS_MAX:
        return f"error: the expression has more than {EXPRESSION_CHARS_MAX} characters"
    plain = blank_markup(expression.replace("**", "^")).strip().removesuffix("=").rstrip()
    try:
        quantity = evaluate(plain)
    except AmbiguityError as error:
        reason = str(error) or (_MALFORMED if _CHARACTERS.fullmatch(expression) else _NO_EXPRESSION)
        return f"error: the expression cannot be calculated: {reason}"
    return format_number(quantity.value) + "%" * quantity.percent
