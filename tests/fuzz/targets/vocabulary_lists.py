"""Lists of kept tokens."""

from functools import partial

from thirteen.convert.vocabulary.vocabulary_list import VocabularyList
from thirteen.errors import ThirteenError

from ..json_mutator import mutate_json
from ..target import Target, refused, scratch_file

_WORDS = ("of", "tokens", "tokenizer_sha256", "0" * 64, "f" * 64)


def check(data: bytes) -> bool:
    path = scratch_file("vocabulary.json", data)
    try:
        kept = VocabularyList.load(path)
    except ThirteenError as error:
        return refused(error)
    assert list(kept.tokens) == sorted(set(kept.tokens)) and 0 <= kept.tokens[0] <= kept.tokens[-1] < kept.of
    kept.save(path)
    assert VocabularyList.load(path) == kept
    return True


TARGET = Target(check, words=_WORDS, mutate=partial(mutate_json, words=_WORDS))
