"""Texts to run a model over, as JSON lines: plain ones, and questions with their solutions."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import RequestError
from .llama import Model
from .text import Prompter

MAX_BYTES = 64 << 20
MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Passage:
    """A text; with a question, the solution that is to follow it."""

    text: str
    question: str | None = None


def read_passages(path: Path) -> list[Passage]:
    """Read a file of one JSON object a line: {"text": …}, or {"question": …, "solution" or "answer": …}.

    Returns:
        At least one passage; those without text are left out.

    Raises:
        RequestError: the file cannot be read, is too large or holds no text, or a line is something else.
    """
    passages = [
        passage
        for number, line in _lines(path)
        if (passage := _parsed(line, f"{path}: line {number}")).text.strip()
    ]
    if not passages:
        raise RequestError(f"{path}: holds no passage with any text")
    return passages


def passage_tokens(model: Model, prompter: Prompter, passage: Passage) -> list[int]:
    """The tokens of a passage: begun as the model begins a text, or asked and answered as in a chat.

    Raises:
        RequestError: the question is empty, or the chat template does not take it.
    """
    if passage.question is None:
        return model.tokenize(passage.text, special=False, bos=True)
    if not prompter.templated:
        return model.tokenize(f"{passage.question}\n{passage.text}", special=False, bos=True)
    solution = model.tokenize(passage.text, special=False, bos=False)
    return [*prompter.tokens(passage.question), *solution, *([] if model.eos is None else [model.eos])]


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers from 1."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise RequestError(f"{path}: more than {MAX_BYTES} bytes, the most that is read")
    for number, line in enumerate(data.split(b"\n"), 1):
        if len(line) > MAX_LINE_BYTES:
            raise RequestError(
                f"{path}: line {number} has {len(line)} bytes; at most {MAX_LINE_BYTES} are read"
            )
        if line.strip():
            yield number, line


def _parsed(line: bytes, where: str) -> Passage:
    try:
        value = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise RequestError(f"{where}: not UTF-8: {error.reason} at byte {error.start + 1}") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise RequestError(f"{where}: not a JSON object")
    if "text" in value:
        keys = ["text"]
    elif "question" in value:
        keys = ["solution" if "solution" in value else "answer", "question"]
    else:
        raise RequestError(f"{where}: neither 'text' nor 'question' is there")
    for key in keys:
        if not isinstance(value.get(key), str):
            raise RequestError(f"{where}: {key!r} is " + ("not a text" if key in value else "missing"))
    passage = Passage(*(value[key] for key in keys))
    if passage.question is not None and not passage.question.strip():
        raise RequestError(f"{where}: 'question' is empty")
    return passage
