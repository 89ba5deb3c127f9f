"""The journal of a search: a line of JSON for each generation, so that a killed run goes on where it was."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import OutputError, ThirteenError
from .lines import append_line, whole_lines
from .search import Check

FILE = "generations.jsonl"


@dataclass(frozen=True)
class Generation:
    """What one generation told the search.

    Attributes:
        scores: of its candidates.
        check: of the mean after it, if one was due.
        seconds: that it took.
        tokens_s: of these, those in which the model computed.
        sigma: the size of the search's first step; of the first entry only, which is the base's own check.
    """

    scores: tuple[float, ...]
    check: Check | None
    seconds: float
    tokens_s: float
    sigma: float = 0.0


class Journal:
    """The file of a search. Its first line says what the search is, and no other goes on with it."""

    def __init__(self, folder: Path, told: Mapping[str, Any]) -> None:
        """Open the journal in a folder, or begin it.

        Args:
            folder: made if need be.
            told: all that decides the search, as JSON has it.

        Raises:
            OutputError: it cannot be written.
            ThirteenError: the journal there is of another search, or damaged.
        """
        self.path = folder / FILE
        self.told = dict(json.loads(json.dumps(told)))
        self.generations: list[Generation] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot write: {error.strerror or error}") from None
        lines = whole_lines(self.path)
        if not lines:
            append_line(self.path, json.dumps(self.told))
        else:
            self._compare(self._read(lines[0], 1))
            self.generations = [
                self._generation(self._read(line, n), n) for n, line in enumerate(lines[1:], 2)
            ]

    def append(self, generation: Generation) -> None:
        """Put a generation on record: from here on it is on disk.

        Raises:
            OutputError: it cannot be written.
        """
        append_line(self.path, json.dumps(asdict(generation)))
        self.generations.append(generation)

    def _read(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise ThirteenError(f"{self.path}, line {number}: not an entry of a search's journal")
        return entry

    def _compare(self, found: Mapping[str, Any]) -> None:
        for key in {*self.told, *found}:
            if found.get(key) != self.told.get(key):
                raise ThirteenError(
                    f"{self.path}: the run there has {key} {found.get(key)!r}, this one "
                    f"{self.told.get(key)!r}: go on with the same, or choose another folder"
                )

    def _generation(self, entry: Mapping[str, Any], number: int) -> Generation:
        try:
            check = entry["check"]
            return Generation(
                tuple(float(score) for score in entry["scores"]),
                None
                if check is None
                else Check(float(check["score"]), int(check["right"]), int(check["rows"])),
                float(entry["seconds"]),
                float(entry["tokens_s"]),
                float(entry.get("sigma", 0.0)),
            )
        except (KeyError, TypeError, ValueError):
            raise ThirteenError(f"{self.path}, line {number}: not a generation's scores") from None
