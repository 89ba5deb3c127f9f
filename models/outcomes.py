"""What is right on held-out rows, on record some rows at a time: a killed run goes on where it was."""

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from ..errors import OutputError
from .rows import Row
from .search import Numbers

FILE = "held-out.jsonl"
_ROWS = 64  # of one entry

Judged = Callable[[Numbers, Sequence[Row]], list[bool]]


class Outcomes:
    """The record in a folder of which rows were answered rightly, with which numbers."""

    def __init__(self, folder: Path) -> None:
        """Open it, or begin it; half a line, which a killed run leaves, counts for nothing."""
        self._path = folder / FILE
        self._known: dict[str, list[bool]] = {}
        lines = self._path.read_bytes().split(b"\n")[:-1] if self._path.exists() else []
        for line in lines:
            try:
                entry = json.loads(line)
                self._known[str(entry["of"])] = [bool(one) for one in entry["right"]]
            except (ValueError, RecursionError, KeyError, TypeError):
                continue

    def right(self, judged: Judged, numbers: Numbers, rows: Sequence[Row]) -> list[bool]:
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
                self._append(key)
            found += self._known[key]
        return found

    def _append(self, key: str) -> None:
        line = "\n" + json.dumps({"of": key, "right": list(map(int, self._known[key]))}) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise OutputError(f"{self._path}: cannot write: {error.strerror or error}") from None


def _key(numbers: Numbers, rows: Sequence[Row]) -> str:
    asked = json.dumps([(row.question, row.answer) for row in rows])
    return sha256(np.asarray(numbers, "<f8").tobytes() + asked.encode()).hexdigest()
