"""The order in which the tokens of a base are kept.

First comes what every list has: single bytes, special tokens, numbers of one to three digits, signs, white
space, LaTeX. Then come the tokens that the texts use, by how often. The others follow by the probability that
the model gives them over the texts, divided by their place among the merges: the probability of a rare token
is an uncertain estimate, and merges are in the order of frequency. Tokens of other scripts are the last.

Each token follows those that it is built from, so that every beginning of the order is closed under merges.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
from gguf import TokenType
from numpy.typing import NDArray

from ...errors import FileError
from ...stats import Doubles
from .tokenizer_tables import TokenizerTables
from .vocabulary_list import VocabularyList

# llama.cpp's pre-tokenizers that take a word that is a token as a whole, whatever its merges.
_IGNORE_MERGES = frozenset(
    {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2", "tekken"}
)
_IN_TEXTS = (TokenType.NORMAL, TokenType.USER_DEFINED)
_PROBABILITY_MIN = 1e-8  # smaller means over a few thousand positions tell nothing
REPACKED_ROWS = 8  # llama.cpp repacks only matrices whose number of rows is a multiple of this
_DIGITS = 3  # of a probability: sums of floats differ in the last bits between machines

# Commands that math models write.
_COMMANDS = frozenset(Path(__file__).with_name("latex_commands.txt").read_text("utf-8").split())
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


@dataclass(frozen=True, eq=False)
class Ranking:
    """The tokens of a tokenizer in the order in which they are kept."""

    order: tuple[int, ...]  # all; every beginning of at least `required` tokens can be a vocabulary
    required: int  # tokens that every list has
    tokenizer_sha256: str  # see TokenizerTables

    def choose(self, size: int) -> VocabularyList:
        """The first `size` tokens, or up to seven more, so that llama.cpp repacks their matrix."""
        _check_size(size, self.required, len(self.order))
        size = min(size + -size % REPACKED_ROWS, len(self.order))
        return VocabularyList(tuple(sorted(self.order[:size])), len(self.order), self.tokenizer_sha256)


def required_tokens(tables: TokenizerTables) -> list[int]:
    """The tokens that every list has, each after the tokens that it is built from."""
    required = [*tables.byte_ids.values(), *sorted(tables.required_ids)]
    for token in np.flatnonzero(np.isin(tables.types, _IN_TEXTS)).tolist():
        text = tables.text(token)
        if text and must_stay(text) and _is_reachable(tables, token):
            required.append(token)
    return _with_parts(tables, required)


def check_size(tables: TokenizerTables, size: int) -> None:
    """Raise FileError if a tokenizer cannot be trimmed to `size` tokens."""
    _check_size(size, len(required_tokens(tables)), len(tables.tokens))


def rank_tokens(
    tables: TokenizerTables, counts: NDArray[np.int64], probability: Doubles | None = None
) -> Ranking:
    """Rank tokens by how often texts use each, and by its mean probability over them, both (tokens,).

    Without probabilities, tokens that the texts do not use are ranked by the order of merges alone.
    """
    required, used = required_tokens(tables), np.flatnonzero(counts)
    by_count = used[np.argsort(-counts[used], kind="stable")].tolist()
    order = _with_parts(tables, chain(required, by_count, _by_score(tables, probability), range(len(counts))))
    return Ranking(tuple(order), len(required), tables.sha256)


def _with_parts(tables: TokenizerTables, tokens: Iterable[int]) -> list[int]:
    """The tokens without repetitions, each after those that it is built from."""
    order = dict[int, None]()
    for token in tokens:
        if token not in order:
            order |= dict.fromkeys((*tables.built_from(token), token))
    return list(order)


def _by_score(tables: TokenizerTables, probability: Doubles | None) -> list[int]:
    """The tokens of the Latin script, by probability and merge order together."""
    places = _merge_places(tables)
    ranked = []
    for token in np.flatnonzero(tables.types == TokenType.NORMAL).tolist():
        text = tables.text(token)
        if text is not None and is_latin(text) and _is_reachable(tables, token):
            given = 0.0 if probability is None else float(f"{probability[token]:.{_DIGITS - 1}e}")
            score = max(given, _PROBABILITY_MIN) / (places[token] * form_factor(text))
            ranked.append((-score, token))
    return [token for _, token in sorted(ranked)]


def _merge_places(tables: TokenizerTables) -> NDArray[np.int64]:
    """The place of the first merge that gives each token, from 1; (tokens,)."""
    places = np.full(len(tables.tokens), len(tables.merges) + 1)
    results, first = np.unique(tables.merges[:, 2], return_index=True)
    places[results] = first + 1
    places[[len(text) == 1 for text in tables.tokens]] = 1
    return places


def _is_reachable(tables: TokenizerTables, token: int) -> bool:
    """Whether a text can have a token: merges give it, or it can be taken as a whole."""
    whole = tables.pre_tokenizer in _IGNORE_MERGES or tables.types[token] == TokenType.USER_DEFINED
    return whole or len(tables.tokens[token]) == 1 or bool(tables.built_from(token))


def _check_size(size: int, required: int, of: int) -> None:
    if not required <= size <= of:
        raise FileError(
            f"a vocabulary of {size} tokens: {required} must stay: bytes, special tokens, numbers, signs, "
            f"white space and LaTeX; and the base has {of}"
        )


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
