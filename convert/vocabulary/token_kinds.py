"""What a token is by its text: a number, a sign, white space, LaTeX, a word, a piece of one."""

import re
import unicodedata
from functools import cache
from pathlib import Path

# Commands that math models write.
LATEX_COMMANDS = tuple(Path(__file__).with_name("latex_commands.txt").read_text("utf-8").split())
_COMMANDS = frozenset(LATEX_COMMANDS)
_MARKS = "−×÷·±√π°∞≈≠≤≥∠∑∏∫∂∆Δθ∈→⇒⇔²³½¼¾¢£¤¥₩€₹₽–—‘’“”…•"  # noqa: RUF001 - they are what they look like
# Tokens that always stay, besides commands.
_RULES = (
    # Numbers.
    re.compile(r" ?[0-9]{1,3}"),
    # White space.
    re.compile(r" {1,16}|\t{1,8}|\r?\n|(?:\r\n){1,4}|\n{1,8}| \n{1,2}|\n {1,8}"),
    # LaTeX.
    re.compile(r"\\[(\[)\]{}\\,;!%$]|\$\$|\}\{|\}\}|\}\$|\)\$|\{\\|\$\\|\(\\|\[\\|\^\{|_\{|\}\^|\}\)|\\\\\n"),
    # One or two ASCII signs, or a mathematical sign, a currency or a typographic mark.
    # Signs.
    re.compile(rf" ?(?:[!-/:-@\[-`{{-~]{{1,2}}\n{{0,2}}|[{_MARKS}])"),
)
# Words come before pieces of words: the factor of a token's place in the order of merges.
_FORMS = (
    (re.compile(r" [a-z]+"), 1.0),
    (re.compile(r" [A-Z][a-z]+"), 1.5),
    (re.compile(r"[A-Z]?[a-z]+"), 2.0),
    (re.compile(r"[-/][a-z]+|[^A-Za-z]+"), 2.5),
)
_OTHER_FORM = 4.0


def must_stay(text: str) -> bool:
    """Whether a token always stays, by its text: a number, a sign, white space, LaTeX."""
    # Most vocabularies have a command without its backslash.
    return text.removeprefix("\\") in _COMMANDS or any(rule.fullmatch(text) for rule in _RULES)


def is_latin(text: str) -> bool:
    """Whether all letters of a text are of the Latin script."""
    return all(map(_latin_character, text))


@cache
def _latin_character(character: str) -> bool:
    return character.isascii() or not character.isalpha() or "LATIN" in unicodedata.name(character, "")


def form_factor(text: str) -> float:
    """By how much a token's place among the merges counts: 1 for a word, 4 for parts of code."""
    return next((factor for rule, factor in _FORMS if rule.fullmatch(text)), _OTHER_FORM)
