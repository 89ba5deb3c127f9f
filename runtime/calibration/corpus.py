"""Calibration and evaluation text from JSON lines: plain passages, and questions with solutions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import RequestError
from ...files.json_lines import read_json_lines
from ..llama.model import Model
from ..prompt.prompt_encoder import PromptEncoder


@dataclass(frozen=True, slots=True)
class Passage:
    """A text, or a question with its solution as the text."""

    text: str
    question: str | None = None


def read_passages(path: Path) -> list[Passage]:
    """Read one JSON object per line: {"text": …}, or {"question": …, "solution" or "answer": …}.

    Returns:
        At least one passage. Passages with blank text are left out.

    Raises:
        RequestError: the file cannot be read, is too large or has no text, or a line is invalid.
    """
    passages = [
        passage for where, value in read_json_lines(path) if (passage := _passage(value, where)).text.strip()
    ]
    if not passages:
        raise RequestError(f"{path}: no passage has any text")
    return passages


def answer_start(model: Model, encoder: PromptEncoder, passage: Passage) -> int | None:
    """Index of the first token of the solution in passage_tokens(); None for a text without a question."""
    _, start = tokenize_passage(model, encoder, passage)
    return start


def passage_tokens(model: Model, encoder: PromptEncoder, passage: Passage) -> list[int]:
    """The tokens of a passage; see tokenize_passage()."""
    tokens, _ = tokenize_passage(model, encoder, passage)
    return tokens


def tokenize_passage(model: Model, encoder: PromptEncoder, passage: Passage) -> tuple[list[int], int | None]:
    """Tokenize a passage, as a text or as a chat turn with its solution.

    Returns:
        The tokens, and the index of the first one of the solution; None for a text without a question.

    Raises:
        RequestError: the question is empty, or the chat template rejects it.
    """
    if passage.question is None:
        return model.tokenize(passage.text, special=False, bos=True), None
    if not encoder.has_template:
        question = f"{passage.question}\n"
        tokens = model.tokenize(question + passage.text, special=False, bos=True)
        return tokens, len(model.tokenize(question, special=False, bos=True))
    prompt = encoder.encode_question(passage.question)
    solution = model.tokenize(passage.text, special=False, bos=False)
    return [*prompt, *solution, *([] if model.eos is None else [model.eos])], len(prompt)


def _passage(value: dict[str, Any], where: str) -> Passage:
    if "text" in value:
        keys = ["text"]
    elif "question" in value:
        keys = ["solution" if "solution" in value else "answer", "question"]
    else:
        raise RequestError(f"{where}: has neither 'text' nor 'question'")
    for key in keys:
        if not isinstance(value.get(key), str):
            raise RequestError(f"{where}: {key!r} is " + ("not a string" if key in value else "missing"))
    passage = Passage(*(value[key] for key in keys))
    if passage.question is not None and not passage.question.strip():
        raise RequestError(f"{where}: 'question' is empty")
    return passage
