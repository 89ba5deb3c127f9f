"""Validation of a finished answer: llguidance does not enforce all keywords of a schema while sampling."""

import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache, partial
from time import thread_time
from typing import Any

from jsonschema import Draft201909Validator, Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend
from llguidance import LLMatcher, LLTokenizer
from referencing import Registry

from ..errors import as_line, one_line
from .grammar import JSON_OPTIONS, LIMITS, Grammar

SECONDS_MAX = 0.5  # of processor time
_DEPTH_MAX = 100  # keywords within each other; each takes five calls
# llguidance enforces these, and Python's regular expressions may not end.
_SKIPPED = ("patternProperties", "unevaluatedProperties")


def find_violation(grammar: Grammar, text: str) -> str | None:
    """Return which keyword of a grammar's schema a finished answer violates, and where, as a JSON pointer.

    None if it is valid or has no schema. Takes about SECONDS_MAX at most, and loads nothing remote.
    """
    if grammar.schema is None:
        return None
    # A list of items is of drafts before 2020-12, which clients send without saying so.
    draft = Draft202012Validator if '"prefixItems"' in grammar.schema else Draft201909Validator
    strings = {name: partial(_string, name) for name in ("pattern", "format")}
    own = {**strings, "multipleOf": _multiple}
    checks = _limited(draft.VALIDATORS | own, thread_time() + SECONDS_MAX)
    try:
        schema = json.loads(grammar.schema, object_hook=_without_draft)
        validator = extend(draft, checks)(schema, registry=Registry())
        error = best_match(validator.iter_errors(json.loads(text)))
    except Exception as failure:  # jsonschema raises anything on malformed keywords
        return f"not validated: {one_line(failure)}"
    if not error:
        return None
    pointer = "".join(f"/{step}" for step in error.absolute_path)
    return as_line(f"#{pointer[:160]}: {error.validator}: {error.message[:160]}")


def _without_draft(schema: dict[str, Any]) -> dict[str, Any]:
    """Leave out `$schema`, by which jsonschema would choose its own checks."""
    return {key: value for key, value in schema.items() if key != "$schema" or isinstance(value, dict)}


def _limited(checks: Mapping[str, Any], deadline: float) -> dict[str, Any]:
    """Checks that end in time, and before Python's own limit of calls, where native code panics."""
    depth = 0

    def limit(name: str, check: Any) -> Any:
        def limited(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
            nonlocal depth
            if thread_time() > deadline:
                raise TimeoutError("it takes too long")
            if depth == _DEPTH_MAX:
                raise RecursionError("it is too deep")
            if name in _SKIPPED or (name == "additionalProperties" and "patternProperties" in schema):
                return
            depth += 1
            try:
                yield from check(validator, value, instance, schema) or ()
            finally:
                depth -= 1

        return limited

    return {name: limit(name, check) for name, check in checks.items()}


def _multiple(validator: Any, divisor: Any, instance: Any, _: Any) -> Iterator[ValidationError]:
    """Divide as the numbers are written: doubles divide inexactly, so that 0.7 is no multiple of 0.1."""
    if validator.is_type(instance, "number") and Fraction(repr(instance)) % Fraction(repr(divisor)):
        yield ValidationError(f"{instance} is not a multiple of {divisor}")


def _string(keyword: str, _: Any, value: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Match a string by llguidance, in linear time; it rejects look-around."""
    if not isinstance(instance, str):
        return
    text = json.dumps(instance, ensure_ascii=False).replace("\x7f", r"\u007f").encode()
    matcher = _matcher(keyword, value).deep_copy()
    if matcher.is_error():
        if "format" not in schema:  # beside a format, zod's look-around says the same
            yield ValidationError("it cannot be checked")
    elif matcher.try_consume_tokens([*text]) < len(text) or not matcher.is_accepting():
        yield ValidationError("the text does not match")


@lru_cache(64)
def _matcher(keyword: str, value: str) -> LLMatcher:
    source = LLMatcher.grammar_from_json_schema({"type": "string", keyword: value}, overrides=JSON_OPTIONS)
    return LLMatcher(LLTokenizer("byte"), source, log_level=0, limits=LIMITS)
