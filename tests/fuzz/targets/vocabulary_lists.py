"""Lists of kept tokens."""

from functools import partial
from pathlib import Path

from thirteen.convert.vocabulary.vocabulary_list import VocabularyList

from ..json_mutator import mutate_json
from ..target import Target, accepts, scratch_file

_WORDS = ("of", "tokens", "tokenizer_sha256", "0" * 64, "f" * 64)


def check(data: bytes) -> bool:
    return accepts(_load, scratch_file("vocabulary.json", data))


def _load(path: Path) -> None:
    kept = VocabularyList.load(path)
    assert list(kept.tokens) == sorted(set(kept.tokens)) and 0 <= kept.tokens[0] <= kept.tokens[-1] < kept.of
    kept.save(path)
    assert VocabularyList.load(path) == kept


TARGET = Target(check, words=_WORDS, mutate=partial(mutate_json, words=_WORDS))
