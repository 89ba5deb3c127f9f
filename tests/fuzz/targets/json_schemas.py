"""JSON schemas: a grammar of one that is accepted gives only texts that are valid for it."""

import json
from contextlib import suppress
from random import Random
from typing import Any

import jsonschema  # type: ignore[import-untyped]
from thirteen.errors import RequestError, ThirteenError
from thirteen.runtime.grammar.grammar import Grammar, from_schema
from thirteen.runtime.grammar.json_schema import ANNOTATIONS
from thirteen.runtime.grammar.schema_keywords import FORMATS, KEYWORDS

from ...runtime.grammar.texts import GrammarTexts
from ..mutators import mutate_json
from ..target import Target, refused, tiny_model

_WORDS = (*KEYWORDS, *sorted({key for keys in KEYWORDS.values() for key in keys} | ANNOTATIONS), *FORMATS)
# The oracle has another syntax of patterns, and divides floating point numbers.
_OTHER_RULES = ('"pattern"', '"multipleOf"')
_texts = GrammarTexts(tiny_model())


def check(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    try:
        grammar = from_schema(text)
    except ThirteenError as error:
        return refused(error)
    sample = _sample(grammar, len(data))
    if sample is not None and not any(word in text for word in _OTHER_RULES):
        _check(json.loads(sample), json.loads(text))
    return True


def _check(value: object, schema: Any) -> None:
    """Validate a value; annotations that are none, such as an `$id` that is a number, end the oracle."""
    with suppress(AttributeError, LookupError, TypeError):
        jsonschema.Draft202012Validator(schema).validate(value)


def _sample(grammar: Grammar, seed: int) -> str | None:
    """A text of the grammar; none if it is long, or needs a token that the vocabulary lacks."""
    try:
        return _texts.sample(grammar, Random(seed), max_bytes=80, closing_bytes=20)
    except RequestError as error:
        refused(error)
        return None


TARGET = Target(check, max_bytes=2048, words=_WORDS, mutate=mutate_json)
