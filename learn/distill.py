"""Distillation: solutions from a teacher behind an OpenAI chat completions API, filtered by final answer.

A solution that was cut off counts as wrong: a model that learned it would learn to omit the end.
Every solution is saved as it arrives, right or wrong, so a resumed run repeats no request.
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from ..errors import DownloadError, RequestError, ThirteenError, shorten
from ..files.journal import AppendOnlyFile
from ..files.json_file import read_bounded
from ..files.output import with_added_suffix
from ..files.progress import Progress, no_progress
from ..models.rows import TrainingRow, has_final_answer

_RESPONSE_BYTES_MAX = 1 << 22
_KEY_BYTES_MAX = 1 << 16
_SCHEMES = ("http://", "https://")
PROMPT = "Solve the problem step by step. End with a line '#### ' and the final number."


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Reports a redirect as an error: urllib would send the API key to wherever it leads."""

    def redirect_request(self, *_: Any) -> None:
        """Follow no redirect."""


_OPENER = urllib.request.build_opener(_NoRedirects)


@dataclass(frozen=True)
class Teacher:
    """A model behind an OpenAI-compatible API.

    Attributes:
        url: base URL of the API, such as https://…/v1.
        model: model name at the endpoint.
        key: API key, if required.
        system: system prompt.
        temperature: sampling temperature.
        max_tokens: maximum tokens per solution.
        timeout_s: timeout of one request.
    """

    url: str
    model: str
    key: str | None = None
    system: str = PROMPT
    temperature: float = 0.0
    max_tokens: int = 512
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        if not self.url.startswith(_SCHEMES):
            raise DownloadError(f"{self.url!r}: an endpoint must start with {' or '.join(_SCHEMES)}")
        try:
            parts = urllib.parse.urlsplit(self.url)
            (parts.hostname or "").encode("idna")
            (parts.path + parts.query).encode("ascii")
        except ValueError:
            raise DownloadError(
                f"{self.url!r}: an endpoint must have a valid host name, and a path in ASCII characters"
            ) from None

    def solve(self, question: str) -> tuple[str, bool]:
        """Request the solution of one question.

        Returns:
            The solution, and whether it ended before the maximum of tokens.

        Raises:
            DownloadError: the endpoint cannot be reached, returns an error, or returns no chat completion.
        """
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": self.system},
                {"role": "user", "content": question},
            ],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        url = f"{self.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - checked above
        try:
            with _OPENER.open(request, timeout=self.timeout_s) as response:
                return _solution(json.loads(response.read(_RESPONSE_BYTES_MAX)))
        except urllib.error.HTTPError as error:
            raise DownloadError(f"{url}: the teacher returns {error.code} {error.reason}") from None
        except (OSError, HTTPException) as error:
            raise DownloadError(f"{url}: the teacher cannot be reached: {error}") from None
        except (ValueError, RecursionError, KeyError, IndexError, TypeError):
            raise DownloadError(f"{url}: the teacher returned no chat completion") from None


def _solution(response: Any) -> tuple[str, bool]:
    choice = response["choices"][0]
    content = choice["message"]["content"]
    if not isinstance(content, str):
        raise TypeError
    text = content.encode(errors="replace").decode()  # the tokens may end within a surrogate pair
    return text.strip(), choice.get("finish_reason") != "length"


def read_key(path: Path) -> str:
    """Read the API key of a teacher.

    Raises:
        RequestError: the file cannot be read, or holds no key that a header could carry.
    """
    key = read_bounded(path, _KEY_BYTES_MAX).decode("ascii", "replace").strip()
    if not (key and key.isascii() and key.isprintable()):
        raise RequestError(f"{path}: must hold one API key in printable ASCII characters")
    return key


@dataclass(frozen=True)
class DistillResult:
    """Number of solutions kept, number of wrong ones, and how many of both an earlier run had saved."""

    kept: int
    wrong: int
    resumed: int


def distill_solutions(
    rows: Sequence[TrainingRow], teacher: Teacher, out: Path, progress: Progress = no_progress
) -> DistillResult:
    """Have a teacher solve questions, and keep the solutions whose final answer is right.

    Args:
        rows: questions with their answers.
        teacher: model that solves them.
        out: JSON lines of question, solution, answer and teacher. Wrong solutions go to `wrong_file(out)`. If
            the files exist, the run resumes; their answers and their teacher must be the same.
        progress: called with the number of questions done and of all questions.

    Raises:
        DownloadError: the endpoint cannot be reached, or returns no chat completion; saved solutions remain.
        OutputError: a file cannot be written.
        ThirteenError: an existing file is not an output of this function, or has another teacher or answer.
    """
    with AppendOnlyFile(out) as kept, AppendOnlyFile(wrong_file(out)) as wrong:
        # Of rows with equal questions, the first is asked.
        answers = {row.question: row.answer for row in reversed(rows)}
        solved = {
            right: list(_questions(file, teacher.model, answers))
            for right, file in ((True, kept), (False, wrong))
        }
        kept.repair()
        wrong.repair()
        done = {*solved[True], *solved[False]}
        resumed = len(done)
        for number, row in enumerate(rows, 1):
            if row.question not in done:
                solution, ended = teacher.solve(row.question)
                right = ended and has_final_answer(solution, row.answer)
                (kept if right else wrong).append(_line(row, solution, teacher.model))
                solved[right].append(row.question)
                done.add(row.question)
            progress(number, len(rows))
    return DistillResult(len(solved[True]), len(solved[False]), resumed)


def wrong_file(out: Path) -> Path:
    """The file of the wrong solutions beside `out`; see with_added_suffix()."""
    return with_added_suffix(out, ".wrong.jsonl")


def _line(row: TrainingRow, solution: str, teacher: str) -> str:
    entry = {"question": row.question, "solution": solution, "answer": row.answer, "teacher": teacher}
    return json.dumps(entry, ensure_ascii=False)


def _questions(file: AppendOnlyFile, teacher: str, answers: Mapping[str, str]) -> Iterator[str]:
    """The questions in an existing file, whose teacher and answers must be those of this run."""
    for number, line in enumerate(file.lines, 1):
        where = f"{file.path}: line {number}"
        try:
            entry = json.loads(line)
            question = str(entry["question"])
            expected = {"teacher": teacher, "answer": answers.get(question, entry["answer"])}
            found = {key: entry[key] for key in expected}
        except (ValueError, RecursionError, KeyError, TypeError):
            raise ThirteenError(f"{where}: not a JSON object with question, answer and teacher") from None
        for key, value in expected.items():
            if found[key] != value:
                raise ThirteenError(
                    f"{where}: its {key} is {shorten(found[key])}, not {shorten(value)}: choose a new output"
                )
        yield question
