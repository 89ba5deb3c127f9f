"""What a token is by its text: a number, a sign, white space, LaTeX, a word, a piece of one."""

import re
import unicodedata
from functools import cache
from pathlib import Path

from .tokenizer_tables import TEXT_BYTES

NUMBER, SIGN, SPACE, LATEX = "numbers", "signs", "white space", "LaTeX"

# Commands that math models write.
LATEX_COMMANDS = tuple(Path(__file__).with_name("latex_commands.txt").read_text("utf-8").split())
_COMMANDS = frozenset(LATEX_COMMANDS)
_MARKS = "−×÷·±√π°∞≈≠≤≥∠∑∏∫∂∆Δθ∈→⇒⇔²³½¼¾¢£¤¥₩€₹₽–—‘’“”…•"  # noqa: RUF001 - they are what they look like
_RULES = {
    NUMBER: re.compile(r" ?[0-9]{1,3}"),
    SPACE: re.compile(r" {1,16}|\t{1,8}|\r?\n|(?:\r\n){1,4}|\n{1,8}| \n{1,2}|\n {1,8}"),
    LATEX: re.compile(
        r"\\[(\[)\]{}\\,;!%$]|\$\$|\}\{|\}\}|\}\$|\)\$|\{\\|\$\\|\(\\|\[\\|\^\{|_\{|\}\^|\}\)|\\\\\n"
    ),
    # One or two ASCII signs, or a mathematical sign, a currency or a typographic mark.
    SIGN: re.compile(rf" ?(?:[!-/:-@\[-`{{-~]{{1,2}}\n{{0,2}}|[{_MARKS}])"),
}
# Words come before pieces of words: the factor of a token's place in the order of merges.
_FORMS = (
    (re.compile(r" [a-z]+"), 1.0),
    (re.compile(r" [A-Z][a-z]+"), 1.5),
    (re.compile(r"[A-Z]?[a-z]+"), 2.0),
    (re.compile(r"[-/][a-z]+|[^A-Za-z]+"), 2.5),
)
_OTHER_FORM = 4.0


def token_text(token: str) -> str | None:
    """The text of a token in byte-level characters; None if it is not a whole number of characters."""
    try:
        return bytes(TEXT_BYTES[character] for character in token).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return None


def required_kind(text: str) -> str | None:
    """Which kind of token that always stays this is, by its text: NUMBER, SPACE, LATEX, SIGN, or None."""
    if text.removeprefix("\\") in _COMMANDS:  # most vocabularies have the command without its backslash
        return LATEX
    return next((kind for kind, rule in _RULES.items() if rule.fullmatch(text)), None)


def is_latin(text: str) -> bool:
    """Whether all letters of a text are of the Latin script."""
    return all(map(_latin_character, text))


@cache
def _latin_character(character: str) -> bool:
    return character.isascii() or not character.isalpha() or "LATIN" in unicodedata.name(character, "")


def form_factor(text: str) -> float:
    """By how much a token's place among the merges counts: 1 for a word, 4 for parts of code."""
    return next((factor for rule, factor in _FORMS if rule.fullmatch(text)), _OTHER_FORM)
