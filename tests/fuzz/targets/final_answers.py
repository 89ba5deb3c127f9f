"""Final answers in a model's text."""

from thirteen.runtime.arithmetic.final_answer import final_answer, format_number, parse_number

from ..target import Target

_WORDS = (
    *(
        "\\boxed{",
        "\\fbox{",
        "#### ",
        "The answer is ",
        "answer: ",
        "**",
        "= ",
        "\\frac{3}{4}",
        "\\frac34",
        "½",
    ),
    *(
        "1,234",
        "-3.50",
        "$",
        "20%",
        "1 1/2",
        " and ",
        "1e9",
        " x 10^{3}",
        "km/h",
        "\n",
        ". ",
        "Step 2",
        "3rd",
    ),
    *("\\text{", "\\!", "{,}", "\u2212", "€", ".5"),
)


def check(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    parse_number(text)
    value = final_answer(text)
    if value is None:
        return False
    written = format_number(value)
    assert parse_number(written) == value, written
    assert final_answer(f"#### {written}") == value, written
    return True


TARGET = Target(check, max_bytes=2048, words=_WORDS)
