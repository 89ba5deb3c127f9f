"""Control tokens in a rendered prompt: the chat template writes them, and no text from outside does.

A conversation is rendered with its texts, and again with a placeholder for each text. Around placeholders the
template writes its own control tokens: the prompt has these, in this order, and no others. Where they are is
known if it writes the same around the texts.

If it doesn't, because it reads or changes a text, only texts with the name of a control token are replaced.
If it still doesn't, or now writes other control tokens, the conversation is refused.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...errors import RequestError
from ...files.json_file import json_texts

# Ideographs and what follows: without case, and printable, so that repr() keeps them.
_CHARACTERS = range(0x20000, 0x110000)
_RUNS = re.compile("([\U00020000-\U0010ffff])\\1*|[^\U00020000-\U0010ffff]+")
# Names, roles and types that templates look up and compare: words of OpenAI's API and of JSON Schema.
_WORDS = re.compile(
    "role|system|developer|user|assistant|tool|content|tool_calls|tool_call_id|id|type|function|name|description|"
    "arguments|parameters|properties|required|items|enum|default|format|nullable|title|anyOf|oneOf|allOf|strict|"
    "additionalProperties|object|array|string|integer|number|boolean|null"
)


class ControlNames:
    """Finds names of control tokens in texts, the longest first, as tokenizers do; none with white space.

    The time is that of the text times the number of lengths, however many names there are: a regular
    expression would try one name after the other, and hold Python's lock.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(name for name in names if name.split() == [name])
        self._lengths = sorted({*map(len, self.names)}, reverse=True)
        firsts = {re.escape(name[0]) for name in self.names}
        self._first = re.compile(f"[{''.join(firsts)}]" if firsts else r"(?!)")

    def split(self, text: str) -> list[str]:
        """Split a text at names, into text, name, text, name, …, text."""
        parts, end = [], 0
        for match in self._first.finditer(text):
            start = match.start()
            found = (text[start : start + length] for length in self._lengths)
            name = next((part for part in found if part in self.names), None)
            if name and start >= end:
                parts += [text[end:start], name]
                end = start + len(name)
        return [*parts, text[end:]]


def split_at_names(
    render: Callable[[list[Any]], str], asked: list[Any], names: ControlNames, source: str
) -> list[str]:
    """Render a conversation and its tools, and split it at the control tokens that the template has written.

    Returns text, name of a control token, text, name, …, text. RequestError: rendering fails, or control
    tokens depend on the texts.
    """
    prompt = render(asked)
    texts = {text.strip() for text in json_texts(asked)} - {""}
    used = set(source).union(*texts, *names.names)

    def replace(replaced: Iterable[str]) -> tuple[list[str], list[str] | None]:
        placeholders = _Placeholders(replaced, used)
        pieces = names.split(render(placeholders.hide(asked)))
        return pieces[1::2], placeholders.fill(pieces, prompt)

    written, filled = replace(texts)
    if filled is None:
        again, filled = replace(text for text in texts if len(names.split(text)) > 1)
        if filled is None or again != written:
            raise RequestError("the chat template makes control tokens of texts")
    return filled


class _Placeholders:
    """Placeholders for texts: runs of a character each, between the white space at the text's ends.

    Templates strip texts, compare their lengths, and sort names: the order of placeholders is that of the
    texts.
    """

    def __init__(self, texts: Iterable[str], used: set[str]) -> None:
        free = (chr(code) for code in _CHARACTERS if chr(code) not in used)
        self._characters = {text: next(free) for text in sorted(texts)}
        self._texts = {character: text for text, character in self._characters.items()}

    def hide(self, value: Any, *, words: bool = False) -> Any:
        """A JSON value with placeholders for its texts and names; with `words`, templates' words stay."""
        if isinstance(value, str):
            text = value.strip()
            if text not in self._characters or (words and _WORDS.fullmatch(value)):
                return value
            return value.replace(text, self._characters[text] * len(text))
        if isinstance(value, Mapping):
            return {
                self.hide(name, words=True): self.hide(inner, words=name in ("role", "type"))
                for name, inner in value.items()
            }
        is_list = isinstance(value, list | tuple)
        return [self.hide(inner, words=words) for inner in value] if is_list else value

    def fill(self, pieces: list[str], prompt: str) -> list[str] | None:
        """The pieces in the prompt with the texts, also in JSON; None if the prompts differ otherwise."""
        filled: list[str] = []
        end = 0
        for piece in pieces:
            start = end
            for run in _RUNS.finditer(piece):
                shown = next((form for form in self._forms(run[0]) if prompt.startswith(form, end)), None)
                if shown is None:
                    return None
                end += len(shown)
            filled.append(prompt[start:end])
        return filled if end == len(prompt) else None

    def _forms(self, run: str) -> list[str]:
        text = self._texts.get(run[0])
        if text is None:
            return [run]
        copies, rest = divmod(len(run), len(text))
        return [] if rest else [json.dumps(text, ensure_ascii=False)[1:-1] * copies, text * copies]
