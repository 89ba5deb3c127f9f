"""How much of a text is in a script for which a trimmed vocabulary has no tokens.

A letter outside ASCII is foreign to a vocabulary if no token that writes it has more than two bytes of
letters: it is written in parts, or it is a letter of two bytes on its own. A vocabulary that was made for a
script joins such letters to longer tokens. Marks count as letters, as many scripts write vowels with them.
Letters of ASCII are never foreign: `x` and `y` are on their own in any formula. So this tells another script,
such as Cyrillic, Devanagari or Chinese, and not another language in Latin script.
"""

import unicodedata
from collections.abc import Callable, Sequence

_FRAGMENT_BYTES = 2
FOREIGN_SHARE_MAX = 0.5  # a text with a larger share is mostly foreign
_LETTERS_MIN = 4  # a text with fewer foreign letters has a symbol such as π, and no foreign words


def foreign_share(text: str, tokens: Sequence[int], piece: Callable[[int], bytes]) -> float:
    """Compute the share of foreign letters in all letters of a text, from 0 to 1; 0 with fewer than four."""
    owners = _letter_of_each_byte(text)  # index of the letter, or -1
    letters = {owner for owner in owners if owner >= 0}
    whole, at = set[int](), 0  # letters that a longer token writes, in whole or in part
    for token in tokens:
        end = at + len(piece(token))
        covered = [owner for owner in owners[at:end] if owner >= 0]
        if len(covered) > _FRAGMENT_BYTES:
            whole.update(covered)
        at = end
    foreign = sum(letter not in whole and not text[letter].isascii() for letter in letters)
    return foreign / len(letters) if foreign >= _LETTERS_MIN else 0.0


def _letter_of_each_byte(text: str) -> list[int]:
    owners = []
    for index, character in enumerate(text):
        is_letter = unicodedata.category(character)[0] in "LM"
        owners += [index if is_letter else -1] * len(character.encode("utf-8", "replace"))
    return owners
