"""Grammars that constrain an answer: JSON schemas, Lark grammars and regular expressions.

What a grammar asks for and llguidance would not enforce is refused here, before a model is loaded.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from llguidance import LLMatcher

from ...errors import RequestError
from .compiler import check_source, summary
from .json_schema import enforceable

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

SCHEMA_MAX = 1 << 16  # bytes
GRAMMAR_MAX = 1 << 14  # bytes of a Lark grammar
REGEX_MAX = 1 << 12  # bytes
_DIGITS = 16  # of a number, as llama.cpp has it; small models write zeros without an end

# At most one space, or a newline with indentation: endless white space is a trap for small models.
_JSON_OPTIONS: "JsonCompileOptions" = {"lenient": False, "whitespace_pattern": r"(?: |\n[ \t]{0,20})?"}
# Parts of Lark grammars that are not enforced as they read; literals, expressions and comments are skipped.
_LARK_TOKEN = re.compile(
    r'"(?:[^"\\\n]|\\.)*"|/(?!/)(?:[^/\\\n]|\\.)+/|//[^\n]*|\#[^\n]*|(?P<refused>%json|%regex|\btemperature\s*='
    r"|\bmax_tokens\s*=|@\w+|<\[[^\n>]*>|<\|?\w[^\s>]*>)"
)


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar that can be enforced; made by the functions of this module.

    Attributes:
        source: the grammar in llguidance's own format.
        digits: how many digits a number of its JSON texts has at most before and behind the point, where it
            can end there; 0 is no limit. An exponent has two.
    """

    source: str
    digits: int = 0


def from_lark(text: str, values: Mapping[str, Grammar] = MappingProxyType({})) -> Grammar:
    """Make a grammar from llguidance's variant of Lark, with `start` as its start rule.

    Args:
        text: the grammar.
        values: grammars by from_schema(), by the names of rules that stand for them in the text.

    Raises:
        RequestError: the grammar is malformed, exceeds a limit, or uses something that would not be
            enforced here: tokens (`<|name|>`, `<[1]>`), `%json`, `%regex`, other grammars, `temperature`,
            `max_tokens`.
    """
    _check_size(text, "grammar", GRAMMAR_MAX)
    for match in _LARK_TOKEN.finditer(text):
        if refused := match["refused"]:
            line = text.count("\n", 0, match.start()) + 1
            raise RequestError(f"grammar at line {line}: {refused[:40]!r} cannot be enforced")
    rules = [f"{name}: %json {_schema_of(value)}" for name, value in values.items()]
    digits = max((value.digits for value in values.values()), default=0)
    return _checked(LLMatcher.grammar_from_lark("\n".join([text, *rules])), "grammar", digits)


def _schema_of(grammar: Grammar) -> str:
    (part,) = json.loads(grammar.source)["grammars"]
    return json.dumps(part["json_schema"])


def from_regex(text: str) -> Grammar:
    """Make a grammar of the texts that match a regular expression as a whole.

    Args:
        text: in the syntax of Rust's crate `regex`, without look-around.

    Raises:
        RequestError: the expression is malformed or exceeds a limit.
    """
    _check_size(text, "regex", REGEX_MAX)
    return _checked(LLMatcher.grammar_from_regex(text), "regex")


def from_schema(schema: Mapping[str, object] | bool | str, ignored: list[str] | None = None) -> Grammar:
    """Make a grammar of the JSON texts that are valid for a schema; json_schema.py lists its restrictions.

    Args:
        schema: JSON Schema, parsed or as JSON text. True and {} allow any value.
        ignored: gets the JSON pointers of the keywords that cannot be enforced; None refuses them.

    Raises:
        RequestError: the schema is not JSON, is malformed or too large, or cannot be enforced.
    """
    try:
        plain = dict(schema) if isinstance(schema, Mapping) else schema
        text = plain if isinstance(plain, str) else json.dumps(plain, allow_nan=False)
        _check_size(text, "schema", SCHEMA_MAX)
        value = json.loads(text, parse_float=_finite, parse_constant=_finite, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        position = f"line {error.lineno} column {error.colno}"
        raise RequestError(f"schema: not JSON at {position}: {error.msg}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"schema: not JSON: {error}") from None
    try:
        normal = json.dumps(enforceable(value, ignored))
        source = LLMatcher.grammar_from_json_schema(normal, overrides=_JSON_OPTIONS)
    except RecursionError:
        raise RequestError("schema: values are nested too deeply") from None
    except ValueError as error:  # an escaped lone surrogate
        raise RequestError(f"schema: {summary(str(error))}") from None
    longest = max(map(len, re.findall("[0-9]+", normal)), default=0)
    return _checked(source, "schema", max(longest, _DIGITS))


def _checked(source: str, kind: str, digits: int = 0) -> Grammar:
    check_source(source, kind)
    return Grammar(source, digits)


def _finite(text: str) -> int | float:
    """Parse a number. A whole one becomes an int, because 1.0 and 1 are equal in a schema."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is not a finite number")
    return int(value) if value.is_integer() else value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object has a duplicate key")
    return values


def _check_size(text: object, source: str, maximum: int) -> None:
    if not isinstance(text, str):
        raise RequestError(f"{source}: must be a string, not {type(text).__name__}")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise RequestError(f"{source}: lone surrogate at character {error.start}") from None
    if size > maximum:
        raise RequestError(f"{source}: {size} bytes are more than {maximum}")
