"""The journal of a search: a line of JSON for each generation, so that a killed run goes on where it was."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import ThirteenError
from ...files.journal import Journal
from .cma_search import CheckScore

FILE = "generations.jsonl"


@dataclass(frozen=True)
class GenerationRecord:
    """What one generation told the search.

    Attributes:
        scores: of its candidates.
        check: of the mean after it, if one was due.
        seconds: that it took.
        tokens_s: of these, those in which the model computed.
        sigma: the size of the search's first step; of the first entry only, which is the start's own check.
    """

    scores: tuple[float, ...]
    check: CheckScore | None
    seconds: float
    tokens_s: float
    sigma: float = 0.0


class TuningJournal(Journal):
    """The file of a search. Its first line says what the search is, and no other goes on with it.

    Attributes:
        generations: those on record.
    """

    def __init__(self, folder: Path, told: Mapping[str, Any]) -> None:
        """Open the journal in a folder, if there is one; it begins with the first generation.

        Args:
            folder: made if need be.
            told: all that decides the search.

        Raises:
            ThirteenError: the journal there is of another search, or damaged.
        """
        super().__init__(folder / FILE, json.loads(json.dumps(told)), "search")
        self.generations = [self._generation(entry, number) for number, entry in enumerate(self.entries, 2)]

    def add(self, generation: GenerationRecord) -> None:
        """Record a generation on disk.

        Raises:
            OutputError: it cannot be written, or another process is writing.
        """
        self.record(asdict(generation))
        self.generations.append(generation)

    def _generation(self, entry: Mapping[str, Any], number: int) -> GenerationRecord:
        try:
            check = entry["check"]
            return GenerationRecord(
                tuple(float(score) for score in entry["scores"]),
                None
                if check is None
                else CheckScore(float(check["score"]), int(check["right"]), int(check["rows"])),
                float(entry["seconds"]),
                float(entry["tokens_s"]),
                float(entry.get("sigma", 0.0)),
            )
        except (KeyError, TypeError, ValueError):
            raise ThirteenError(f"{self.path}: line {number}: not a generation's scores") from None
