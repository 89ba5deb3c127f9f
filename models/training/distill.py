"""Solutions by a teacher, any endpoint that speaks OpenAI's chat completions; only the right ones are kept.

Every answer is on record as it comes, kept or not, so that an interrupted run asks for nothing twice.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from ...errors import DownloadError, ThirteenError
from ...files.journal import AppendOnlyFile
from ...files.progress import Progress, no_progress
from ...runtime.arithmetic.final_answer import final_answer, parse_number
from ..rows import TrainingRow

_BYTES_MAX = 1 << 22  # of a teacher's reply
_SCHEMES = ("http://", "https://")
PROMPT = "Solve the problem step by step. End with a line '#### ' and the final number."


@dataclass(frozen=True)
class Teacher:
    """Who is asked.

    Attributes:
        url: of the API, as in https://…/v1.
        model: by the endpoint's name for it.
        key: what it demands, if anything.
        system: what it is told beforehand.
        temperature: of its answers.
        max_tokens: the longest of them.
        timeout_s: how long one may take.
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
            raise DownloadError(f"{self.url!r}: an endpoint begins with {' or '.join(_SCHEMES)}")

    def solve(self, question: str) -> str:
        """Ask one question.

        Raises:
            DownloadError: the endpoint cannot be reached, refuses, or sends what is no answer.
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
            with urllib.request.urlopen(request, timeout=self.timeout_s) as reply:  # noqa: S310
                return _content(json.loads(reply.read(_BYTES_MAX)))
        except urllib.error.HTTPError as error:
            raise DownloadError(f"{url}: the teacher refuses: {error.code} {error.reason}") from None
        except (OSError, HTTPException) as error:
            raise DownloadError(f"{url}: the teacher cannot be reached: {error}") from None
        except (ValueError, RecursionError, KeyError, IndexError, TypeError):
            raise DownloadError(f"{url}: the teacher sent no chat completion") from None


def _content(reply: Any) -> str:
    content = reply["choices"][0]["message"]["content"]
    if not isinstance(content, str):
        raise TypeError
    return content


@dataclass(frozen=True)
class Distilled:
    """How a run went: what is kept by now, what was wrong, and how much of it was on record before."""

    kept: int
    wrong: int
    resumed: int


def distill(
    rows: Sequence[TrainingRow],
    teacher: Teacher,
    out: Path,
    progress: Progress = no_progress,
) -> Distilled:
    """Have a teacher solve questions, and keep the solutions whose final answer is right.

    Args:
        rows: questions and their answers.
        teacher: who is asked.
        out: JSON lines of question, solution, answer and teacher; what was wrong is beside it, in
            `….wrong.jsonl`. A run goes on after what is in them.
        progress: called with the questions done and in all.

    Raises:
        DownloadError: the teacher cannot be reached, or sends what is no answer; what there is stays.
        OutputError: a file cannot be written.
        ThirteenError: a file there is not one of a run like this.
    """
    with AppendOnlyFile(out) as kept, AppendOnlyFile(out.with_name(f"{out.name}.wrong.jsonl")) as wrong:
        solved = {True: list(_questions(kept)), False: list(_questions(wrong))}
        done = {*solved[True], *solved[False]}
        resumed = len(done)
        for number, row in enumerate(rows, 1):
            if row.question not in done:
                entry = _solution(teacher, row)
                solution = entry["solution"]
                right = bool(solution) and final_answer(solution) == parse_number(row.answer)
                (kept if right else wrong).append(json.dumps(entry, ensure_ascii=False))
                solved[right].append(row.question)
                done.add(row.question)
            progress(number, len(rows))
    return Distilled(len(solved[True]), len(solved[False]), resumed)


def _solution(teacher: Teacher, row: TrainingRow) -> dict[str, str]:
    solution = teacher.solve(row.question).strip()
    return {"question": row.question, "solution": solution, "answer": row.answer, "teacher": teacher.model}


def _questions(file: AppendOnlyFile) -> Iterator[str]:
    for number, line in enumerate(file.lines, 1):
        try:
            yield str(json.loads(line)["question"])
        except (ValueError, RecursionError, KeyError, TypeError):
            raise ThirteenError(f"{file.path}, line {number}: not a row of questions and solutions") from None
