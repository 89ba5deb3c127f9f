"""Files from which an interrupted search resumes: its generations, and the graded held-out rows."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ThirteenError
from ..files.journal import AppendOnlyFile, Journal
from ..models.rows import TrainingRow
from .cma_search import CheckScore, Numbers

FILE = "generations.jsonl"
_HELD_OUT_FILE = "held-out.jsonl"
_BLOCK_ROWS = 64

Grade = Callable[[Numbers, Sequence[TrainingRow]], list[bool]]


@dataclass(frozen=True)
class GenerationRecord:
    """The outcome of one generation.

    Attributes:
        scores: score of each candidate.
        check: check of the mean after the generation, if one was due.
        seconds: duration.
        tokens_s: part of the duration in which the model computed.
        sigma: initial step size; only in the first record, which is the check of the start.
    """

    scores: tuple[float, ...]
    check: CheckScore | None
    seconds: float
    tokens_s: float
    sigma: float = 0.0


class TuningJournal(Journal):
    """The journal file of a search. Its first line identifies the search; no other search may resume from it.

    Attributes:
        generations: the records; the first is the check of the start.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Read the journal in a folder, if there is one. The first record creates it.

        Args:
            folder: output folder of the run; created if missing.
            identity: all that the search depends on, as values that JSON can hold.

        Raises:
            ThirteenError: the journal belongs to another search, or is damaged.
        """
        super().__init__(folder / FILE, identity, "search")
        self.generations = [self._generation(entry, number) for number, entry in enumerate(self.entries, 2)]

    def add(self, generation: GenerationRecord) -> None:
        """Append a generation.

        Raises:
            OutputError: the file cannot be written, or another process is writing it.
        """
        self.record(asdict(generation))
        self.generations.append(generation)

    def _generation(self, entry: Mapping[str, Any], number: int) -> GenerationRecord:
        try:
            check = entry["check"]
            return GenerationRecord(
                tuple(float(score) for score in entry["scores"]),
                None if check is None else _parse_check(check),
                float(entry["seconds"]),
                float(entry["tokens_s"]),
                float(entry.get("sigma", 0.0)),
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ThirteenError(f"{self.path}: line {number}: not the record of a generation") from None


def _parse_check(entry: Mapping[str, Any]) -> CheckScore:
    check = CheckScore(float(entry["score"]), int(entry["right"]), int(entry["rows"]))
    if not 0 <= check.right <= check.rows or not check.rows:
        raise ValueError
    return check


class HeldOutCache(AppendOnlyFile):
    """Which rows were answered right with which numbers, in blocks: only the missing ones are graded."""

    def __init__(self, folder: Path, identity: Mapping[str, object]) -> None:
        """Read the file in a folder, if there is one.

        Args:
            folder: output folder of the run.
            identity: all that the answers depend on beside the numbers and the rows.

        Raises:
            RequestError: the file cannot be read.
        """
        super().__init__(folder / _HELD_OUT_FILE)
        self._identity = json.dumps(identity, sort_keys=True)
        self._blocks: dict[str, list[bool]] = {}
        for line in self.lines:
            try:
                entry = json.loads(line)
                self._blocks[str(entry["of"])] = [bool(right) for right in entry["right"]]
            except (ValueError, RecursionError, KeyError, TypeError):
                continue

    def correct(self, grade: Grade, numbers: Numbers, rows: Sequence[TrainingRow]) -> list[bool]:
        """Whether each row is answered right; `grade` is called for the blocks that are not cached.

        Raises:
            OutputError: the file cannot be written.
        """
        correct: list[bool] = []
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = rows[start : start + _BLOCK_ROWS]
            key = self._key(numbers, block)
            if key not in self._blocks:
                self._blocks[key] = grade(numbers, block)
                self.append(json.dumps({"of": key, "right": list(map(int, self._blocks[key]))}))
            correct += self._blocks[key]
        return correct

    def _key(self, numbers: Numbers, rows: Sequence[TrainingRow]) -> str:
        questions = json.dumps([(row.question, row.answer) for row in rows])
        parts = (np.asarray(numbers, "<f8").tobytes(), questions.encode(), self._identity.encode())
        return sha256(b"".join(parts)).hexdigest()
