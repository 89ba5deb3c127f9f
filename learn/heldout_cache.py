"""Cache of graded held-out rows, in blocks, so that a resumed run grades only the missing blocks."""

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from ..files.journal import AppendOnlyFile
from ..models.rows import TrainingRow
from .cma_search import Numbers

FILE = "held-out.jsonl"
_BLOCK_ROWS = 64

Grade = Callable[[Numbers, Sequence[TrainingRow]], list[bool]]


class HeldOutCache(AppendOnlyFile):
    """The file in an output folder that holds which rows were answered right with which numbers."""

    def __init__(self, folder: Path, identity: Mapping[str, object]) -> None:
        """Read the file in a folder, if there is one.

        Args:
            folder: output folder of the run.
            identity: all that the answers depend on beside the numbers and the rows.

        Raises:
            RequestError: the file cannot be read.
        """
        super().__init__(folder / FILE)
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
