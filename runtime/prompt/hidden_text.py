"""Texts in a prompt, of which no chat template can make characters of its own.

A template gets stand-ins for the characters of a text: characters of the private-use planes, and white space
for white space. Whatever it does with them, what it writes shows what is text.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from typing import Any

from .prompt_encoder import Sight

_PRIVATE = ("\U000f0000", "\U0010ffff")
_SPACES = "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\u1680"
# Words of OpenAI's API and of JSON Schema, which templates look up and compare.
_WORDS = re.compile(
    "role|system|user|assistant|tool|content|tool_calls|tool_call_id|id|type|function|name|description|arguments|"
    "parameters|properties|required|items|enum|object|array|string|integer|number|boolean|null"
)
_ANSWERED = "__contains__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __hash__ __getitem__ __repr__"
_NOT_ANSWERED = {"encode", "format", "format_map", "join", "maketrans", "translate"}


class StandIns(dict[int, str]):
    """The stand-ins of characters by code point, as str.translate takes them; made when first asked for.

    Attributes:
        shown: the characters by the code points of their stand-ins.
    """

    def __init__(self, source: str, sight: Sight = "all") -> None:
        """Begin without any.

        Args:
            source: the template, whose characters stand for nothing.
            sight: what it sees of the texts: all, which characters are the same, or lengths and white space
                only; of the latter two also the words that templates compare.
        """
        super().__init__()
        self.shown: dict[int, str] = {}
        self._sight = sight
        self._spaces: Iterator[str] = (c for c in _SPACES if c not in source)
        self._others: Iterator[str] = (c for c in map(chr, range(*map(ord, _PRIVATE))) if c not in source)
        if sight == "lengths":
            self._spaces, self._others = repeat(next(self._spaces, "")), repeat(next(self._others))

    def __missing__(self, code: int) -> str:
        stand_in = next(self._spaces, "") if chr(code).isspace() else ""
        self[code] = stand_in = stand_in or next(self._others)
        self.shown[ord(stand_in)] = chr(code)
        return stand_in

    def hide(self, value: Any) -> Any:
        """The value with stand-ins in its texts, names of objects included."""
        if isinstance(value, str):
            hidden = value.translate(self)
            is_seen = self._sight == "all" or _WORDS.fullmatch(value)
            return HiddenText(hidden, value, self) if is_seen else hidden
        if isinstance(value, Mapping):
            return {self.hide(name): self.hide(inner) for name, inner in value.items()}
        return type(value)(map(self.hide, value)) if isinstance(value, list | tuple) else value

    def show(self, value: Any) -> Any:
        """The value with the characters of its stand-ins."""
        if isinstance(value, str):
            return value._shown if isinstance(value, HiddenText) else value.translate(self.shown)
        return tuple(map(self.show, value)) if isinstance(value, tuple) else value

    def to_json(
        self, value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any
    ) -> str:
        """A hidden value as JSON, in which the escapes of a text's characters are text too."""

        def escape(character: str) -> str:
            shown = self.show(character)
            escaped = json.dumps(shown, ensure_ascii=ensure_ascii)[1:-1]
            return escaped if shown == character else escaped.translate(self)

        text = json.dumps(value, ensure_ascii=False, indent=indent, **options)
        return text.translate({ord(c): escape(c) for c in set(text) if not c.isascii()})

    def split(self, prompt: str) -> list[str]:
        """Split what a template has written into its own characters, a text, its own, …, its own."""
        spaces = "".join(c for c in _SPACES if ord(c) in self.shown)
        parts = re.split(f"([{'-'.join(_PRIVATE)}{spaces}]+)", prompt)
        parts[1::2] = map(self.show, parts[1::2])
        return parts


class HiddenText(str):
    """A text in stand-ins that answers as the text itself does; parts of it are hidden as well.

    What concatenates or formats it takes it for its stand-ins.
    """

    __slots__ = ("_shown", "_stand_ins")
    _shown: str
    _stand_ins: StandIns

    def __new__(cls, hidden: str, shown: str, stand_ins: StandIns) -> "HiddenText":
        text = super().__new__(cls, hidden)
        text._shown, text._stand_ins = shown, stand_ins
        return text

    def __str__(self) -> str:
        return self

    def __iter__(self) -> Iterator[str]:
        return iter([self[at] for at in range(len(self))])


def _as_shown(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(text: HiddenText, *args: Any, **options: Any) -> Any:
        stand_ins = text._stand_ins
        return stand_ins.hide(method(text._shown, *map(stand_ins.show, args), **options))

    return call


for _name, _method in vars(str).items():
    if _name in _ANSWERED.split() or not (_name.startswith("_") or _name in _NOT_ANSWERED):
        setattr(HiddenText, _name, _as_shown(_method))
