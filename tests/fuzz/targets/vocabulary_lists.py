"""Lists of kept tokens."""

from pathlib import Path

from thirteen.convert.vocabulary.vocabulary_list import VocabularyList

from ..mutators import mutate_json
from ..target import Target, accepts, scratch_file


def check(data: bytes) -> bool:
    return accepts(_load, scratch_file("vocabulary.json", data))


def _load(path: Path) -> None:
    kept = VocabularyList.load(path)
    assert list(kept.tokens) == sorted(set(kept.tokens)) and 0 <= kept.tokens[0] <= kept.tokens[-1] < kept.of
    kept.save(path)
    assert VocabularyList.load(path) == kept


TARGET = Target(check, mutate=mutate_json)
