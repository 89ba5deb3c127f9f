"""Calculator for text that is being generated: the result with which an open equation goes on."""

from collections.abc import Sequence

from .equations import SENTENCE_CHARS_MAX, Sentence, StepStream
from .expression import DIGITS_MAX, Side, parse_side
from .final_answer import format_number
from .lexer import Lexeme
from .notation import NOTATION

_CURRENCIES = frozenset(NOTATION.texts["fragments"]["currencies"])
_MONEY_PLACES, _RESULT_PLACES = NOTATION.limits["money_places"], NOTATION.limits["result_places"]


def pending_result(text: str) -> str | None:
    """Compute the result with which a text continues that ends in an expression and "=".

    Returns:
        The characters to append, in the expression's notation, with its currency and thousands separators.
        None if no result is pending, the grammar does not read the whole expression, from the start of a
        line, a sentence or an "=" on, or the result is not a decimal with few places.
    """
    if not text.endswith(("=", "= ")):
        return None
    stream = StepStream()
    stream.feed(text[-2 * SENTENCE_CHARS_MAX :])  # a sentence that begins before is not read
    sentence = stream.rest()
    side = _open_side(sentence) if sentence.is_read else None
    result = _format_result(side, sentence.lexemes[sentence.first :]) if side and side.operators else None
    return f" {result}" if result and text[-1] == "=" and text[-2:-1].isspace() else result


def _open_side(sentence: Sentence) -> Side | None:
    """The expression that reaches to the sign at the end of a sentence."""
    lexemes, end = sentence.lexemes, len(sentence.lexemes) - 1
    for index in range(sentence.first, end if lexemes[end:] and lexemes[end].text == "=" else 0):
        follows = index > sentence.first and lexemes[index - 1].kind == "relation"
        parsed = parse_side(lexemes, index) if follows or sentence.begins(index) else None
        if parsed and parsed[1] == end:
            return parsed[0]
    return None


def _format_result(side: Side, lexemes: Sequence[Lexeme]) -> str | None:
    quantity = side.quantity
    texts = {one.kind: one.text for one in lexemes if one.start >= side.start}
    currency = texts.get("currency", "") if quantity.unit in _CURRENCIES else ""
    percent = texts["percent"] if quantity.percent else ""
    number = format_number(abs(quantity.value) * (100 if percent else 1))
    whole, _, decimals = number.partition(".")
    places_max = _MONEY_PLACES if currency else _RESULT_PLACES
    if (
        ("percent" in texts and not percent)
        or "/" in number
        or len(whole + decimals) > DIGITS_MAX
        or len(decimals) > places_max
    ):
        return None
    if any("," in one.text for one in lexemes if one.kind == "number" and one.start >= side.start):
        whole = f"{int(whole):,}"
    if decimals and currency:
        decimals = decimals.ljust(_MONEY_PLACES, "0")
    return "-" * (quantity.value < 0) + currency + whole + "." * bool(decimals) + decimals + percent
