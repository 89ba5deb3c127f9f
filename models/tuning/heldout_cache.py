"""What is right on held-out rows, on record some rows at a time: a killed run goes on where it was."""

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from ...files.journal import AppendOnlyFile
from ..rows import TrainingRow
from .cma_search import Numbers

FILE = "held-out.jsonl"
_ROWS = 64  # of one entry

Judged = Callable[[Numbers, Sequence[TrainingRow]], list[bool]]


class HeldOutCache(AppendOnlyFile):
    """The record in a folder of which rows were answered rightly, with which numbers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / FILE)
        self._known: dict[str, list[bool]] = {}
        for line in self.lines:
            try:
                entry = json.loads(line)
                self._known[str(entry["of"])] = [bool(one) for one in entry["right"]]
            except (ValueError, RecursionError, KeyError, TypeError):
                continue

    def right(self, judged: Judged, numbers: Numbers, rows: Sequence[TrainingRow]) -> list[bool]:
        """Whether each row is answered rightly, as `judged` says of those that are not on record.

        Raises:
            OutputError: the record cannot be written.
        """
        found: list[bool] = []
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            key = _key(numbers, part)
            if key not in self._known:
                self._known[key] = judged(numbers, part)
                self.append(json.dumps({"of": key, "right": list(map(int, self._known[key]))}))
            found += self._known[key]
        return found


def _key(numbers: Numbers, rows: Sequence[TrainingRow]) -> str:
    asked = json.dumps([(row.question, row.answer) for row in rows])
    return sha256(np.asarray(numbers, "<f8").tobytes() + asked.encode()).hexdigest()
