"""Names of control tokens in a text."""

import re
from collections.abc import Collection


class ControlNames:
    """Finds names in texts, the longest first, as tokenizers do.

    The time is that of the text times the number of lengths that names with one first character have, however
    many names there are. A regular expression would try one name after the other, and hold Python's lock.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(filter(None, names))
        lengths: dict[str, set[int]] = {}
        for name in self._names:
            lengths.setdefault(name[0], set()).add(len(name))
        self._lengths = {first: sorted(found, reverse=True) for first, found in lengths.items()}
        self._first = re.compile(f"[{''.join(map(re.escape, lengths))}]" if lengths else r"(?!)")

    def split(self, text: str) -> list[str]:
        """Split a text at names, into text, name, text, name, …, text."""
        parts, end = [], 0
        for match in self._first.finditer(text):
            start = match.start()
            if start < end:
                continue
            for length in self._lengths[text[start]]:
                name = text[start : start + length]
                if name in self._names:
                    parts += [text[end:start], name]
                    end = start + length
                    break
        return [*parts, text[end:]]
