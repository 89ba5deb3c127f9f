"""Calculator for text that is being generated: the result with which an open equation goes on."""

from .equations import SENTENCE_CHARS_MAX, Sentence, StepStream
from .expression import PERCENT, Side, parse_side
from .lexer import PATTERNS
from .number import format_number

_DIGITS_MAX = 18
_MONEY_PLACES, _RESULT_PLACES = 2, 6


def pending_result(text: str) -> str | None:
    """The characters with which a text continues that ends in an expression and "=", in its notation.

    None if the grammar does not read the whole expression, the result is no decimal with few places, or a
    point may separate thousands: "1.200 * 3 =".
    """
    if not text.endswith(("=", "= ")):
        return None
    stream = StepStream()
    stream.feed(text[-2 * SENTENCE_CHARS_MAX :])  # a sentence that begins before is not read
    side = _open_side(stream.sentence(stream.text))
    result = _format_result(side) if side and side.operators else None
    return f" {result}" if result and text[-1] == "=" and text[-2:-1].isspace() else result


def _open_side(sentence: Sentence) -> Side | None:
    end = len(sentence.lexemes) - 1
    for index in range(end if sentence.letters.endswith("=") else 0):
        if sentence.letters[index - 1 : index] == "=" or sentence.begins(index):
            parsed = parse_side(sentence.lexemes, index)
            if parsed and parsed[1] == end:
                return parsed[0]
    return None


def _format_result(side: Side) -> str | None:
    texts = {lexeme.kind: lexeme.text for lexeme in side.lexemes}
    currency, percent = texts.get("currency", ""), texts.get("percent", "")
    is_percent = side.quantity.unit == PERCENT
    number = format_number(abs(side.quantity.value) * (100 if is_percent else 1))
    whole, point, decimals = number.partition(".")
    places_max = _MONEY_PLACES if currency else _RESULT_PLACES
    if "/" in number or len(whole + decimals) > _DIGITS_MAX or len(decimals) > places_max:
        return None
    if PATTERNS["thousands"].search(side.text) or bool(percent) != is_percent:
        return None
    if "," in side.text:
        whole = f"{int(whole):,}"
    if decimals and currency:
        decimals = decimals.ljust(_MONEY_PLACES, "0")
    return "-" * (side.quantity.value < 0) + currency + whole + point + decimals + percent
