"""Texts to run a model over, as JSON lines: plain ones, and questions with their solutions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import RequestError
from ...files.json_lines import read_json_lines
from ..engine.chat_template import PromptEncoder
from ..llama.model import Model


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
        passage for where, value in read_json_lines(path) if (passage := _passage(value, where)).text.strip()
    ]
    if not passages:
        raise RequestError(f"{path}: holds no passage with any text")
    return passages


def passage_tokens(model: Model, prompter: PromptEncoder, passage: Passage) -> list[int]:
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


def _passage(value: dict[str, Any], where: str) -> Passage:
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
