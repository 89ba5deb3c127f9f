"""Calibration and evaluation text from JSON lines: plain passages, and questions with solutions.

The bundled ones were written for this project.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FileError, RequestError
from ..files.json_file import read_json_lines
from ..runtime.llama.model import Model
from ..runtime.prompt.chat_template import REPRODUCIBLE_DATE, read_chat_template
from ..runtime.prompt.prompt_encoder import Message, PromptEncoder

_FOLDER = Path(__file__).parent / "texts"
# The calibration set for importance files, about 18,000 tokens in SmolLM2's tokenizer. Two thirds are math
# word problems with worked solutions; the rest is prose, code and lists, some of it not in English.
CALIBRATION = _FOLDER / "calibration.jsonl"
# The held-out set: the same kinds of text, about 5,000 tokens, disjoint from the calibration set.
HELD_OUT = _FOLDER / "held_out.jsonl"
# 48 one-step word problems by lab/sums.py, on which no shipped adapter was trained.
HELD_OUT_SUMS = _FOLDER / "sums.jsonl"


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
        FileError: the file cannot be read, is too large or has no text, or a line is invalid.
    """
    passages = [
        passage for where, value in read_json_lines(path) if (passage := _passage(value, where)).text.strip()
    ]
    if not passages:
        raise FileError(f"{path}: no passage has any text")
    return passages


def vocabulary_passages() -> tuple[Passage, ...]:
    """Passages to choose a vocabulary on: word problems, prose, the calibration set and lists of words."""
    with gzip.open(_FOLDER / "vocabulary.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return tuple(Passage(row.get("solution", row.get("text")), row.get("question")) for row in rows)


def tokenize_passages(model: Model, passages: Iterable[Passage]) -> Iterator[tuple[int, ...]]:
    """Tokenize passages, as texts or as chat turns with their solutions.

    Raises:
        RequestError: a question is empty, or the chat template rejects it.
    """
    encoder = PromptEncoder(model, read_chat_template(model, REPRODUCIBLE_DATE))
    return (_tokenize(model, encoder, passage) for passage in passages)


def chunk_passages(model: Model, passages: Sequence[Passage], chunk_size: int) -> list[tuple[int, ...]]:
    """Cut the tokens of all passages into chunks.

    As in llama-imatrix, the begin-of-text token replaces the first token of each chunk, if the tokenizer adds
    one, and an incomplete last chunk is dropped, unless it is the only one.

    Raises:
        RequestError: there are no tokens, or the chat template rejects a question.
    """
    tokens = [token for passage in tokenize_passages(model, passages) for token in passage]
    if not tokens:
        raise RequestError("the passages have no tokens")
    end = len(tokens) // chunk_size * chunk_size or len(tokens)
    begin = model.begin
    return [(*begin, *tokens[start + len(begin) : start + chunk_size]) for start in range(0, end, chunk_size)]


def _tokenize(model: Model, encoder: PromptEncoder, passage: Passage) -> tuple[int, ...]:
    if passage.question is None:
        return tuple(model.tokenize(passage.text, special=False, bos=True))
    if not encoder.template_source:
        return tuple(model.tokenize(f"{passage.question}\n{passage.text}", special=False, bos=True))
    prompt = encoder.encode_conversation([Message("user", passage.question)])
    solution = model.tokenize(passage.text, special=False, bos=False)
    end = () if model.eos is None else (model.eos,)
    return (*prompt, *solution, *end)


def _passage(value: dict[str, Any], where: str) -> Passage:
    if "text" in value:
        keys = ["text"]
    elif "question" in value:
        keys = ["solution" if "solution" in value else "answer", "question"]
    else:
        raise FileError(f"{where}: has neither 'text' nor 'question'")
    for key in keys:
        if not isinstance(value.get(key), str):
            raise FileError(f"{where}: {key!r} is " + ("not a string" if key in value else "missing"))
    passage = Passage(*(value[key] for key in keys))
    if passage.question is not None and not passage.question.strip():
        raise FileError(f"{where}: 'question' is empty")
    return passage
