"""Calculator for text that is being generated: the result with which an open equation goes on."""

from .equations import SENTENCE_CHARS_MAX, Sentence, StepStream
from .expression import PERCENT, Side, parse_side
from .final_answer import format_number
from .notation import NOTATION

_THOUSANDS = NOTATION.patterns["thousands"]
_DIGITS_MAX = NOTATION.limits["digits"]
_MONEY_PLACES, _RESULT_PLACES = NOTATION.limits["money_places"], NOTATION.limits["result_places"]


def pending_result(text: str) -> str | None:
    """Compute the result with which a text continues that ends in an expression and "=".

    Returns:
        The characters to append, in the expression's notation, with its currency and thousands separators.
        None if no result is pending, the grammar does not read the whole expression, from the start of a
        line, a sentence or an "=" on, or the result is not a decimal with few places. None too if a point
        may separate thousands: "1.200 * 3 =".
    """
    if not text.endswith(("=", "= ")):
        return None
    stream = StepStream()
    stream.feed(text[-2 * SENTENCE_CHARS_MAX :])  # a sentence that begins before is not read
    side = _open_side(stream.sentence(stream.text))
    result = _format_result(side) if side and side.operators else None
    return f" {result}" if result and text[-1] == "=" and text[-2:-1].isspace() else result


def _open_side(sentence: Sentence) -> Side | None:
    """The expression that reaches to the sign at the end of a sentence."""
    lexemes, end = sentence.lexemes, len(sentence.lexemes) - 1
    for index in range(end if lexemes and lexemes[end].text == "=" else 0):
        follows = index > 0 and lexemes[index - 1].kind == "relation"
        parsed = parse_side(lexemes, index) if follows or sentence.begins(index) else None
        if parsed and parsed[1] == end:
            return parsed[0]
    return None


def _format_result(side: Side) -> str | None:
    texts = {one.kind: one.text for one in side.lexemes}
    currency, is_percent = texts.get("currency", ""), side.quantity.unit == PERCENT
    number = format_number(abs(side.quantity.value) * (100 if is_percent else 1))
    whole, _, decimals = number.partition(".")
    places_max = _MONEY_PLACES if currency else _RESULT_PLACES
    if "/" in number or len(whole + decimals) > _DIGITS_MAX or len(decimals) > places_max:
        return None
    if ("percent" in texts) != is_percent or any(_THOUSANDS.search(one.text) for one in side.lexemes):
        return None
    if any("," in one.text for one in side.lexemes):
        whole = f"{int(whole):,}"
    if decimals and currency:
        decimals = decimals.ljust(_MONEY_PLACES, "0")
    sign, percent = "-" * (side.quantity.value < 0), texts.get("percent", "")
    return sign + currency + whole + "." * bool(decimals) + decimals + percent
