"""Journal of a search: one line of JSON per generation, from which an interrupted run resumes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ThirteenError
from ..files.journal import Journal
from .cma_search import CheckScore

FILE = "generations.jsonl"


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
