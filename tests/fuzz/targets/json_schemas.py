"""JSON schemas: a grammar of one that is accepted gives only JSON texts, which are valid or reported."""

import json
from random import Random
from typing import Any

import jsonschema
from thirteen.errors import RequestError, ThirteenError
from thirteen.runtime.grammar import Grammar, from_schema
from thirteen.runtime.violation import find_violation

from ...runtime.grammar.texts import GrammarTexts
from ..mutators import mutate_json
from ..target import Target, refused, tiny_model

_WORDS = (
    *jsonschema.Draft202012Validator.VALIDATORS,
    "object",
    "array",
    "string",
    "number",
    "integer",
    "null",
)
# The oracle has another syntax of patterns, and divides floating point numbers.
_OTHER_RULES = ('"pattern', '"multipleOf"')
_texts = GrammarTexts(tiny_model())


def check(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    try:
        grammar = from_schema(text)
    except ThirteenError as error:
        return refused(error)
    sample = _sample(grammar, len(data))
    if (
        sample is not None
        and not find_violation(grammar, sample)
        and not any(w in text for w in _OTHER_RULES)
    ):
        _check(json.loads(sample), json.loads(text))
    return True


def _check(value: object, schema: Any) -> None:
    """Validate a value; a malformed keyword that llguidance ignores ends the oracle."""
    try:
        valid = jsonschema.Draft202012Validator(schema).is_valid(value)
    except Exception:
        return
    assert valid, value


def _sample(grammar: Grammar, seed: int) -> str | None:
    """A text of the grammar; none if it is long, or needs a token that the vocabulary lacks."""
    try:
        return _texts.sample(grammar, Random(seed), max_bytes=80, closing_bytes=20)
    except RequestError as error:
        refused(error)
        return None


TARGET = Target(check, max_bytes=2048, words=_WORDS, mutate=mutate_json)
