"""Grammars that constrain an answer: JSON schemas, Lark grammars and regular expressions, for llguidance."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from llguidance import LLMatcher, LLParserLimits

from ...errors import RequestError, as_line
from ..deep_stack import with_deep_stack
from .json_schema import JSON_OPTIONS, enforceable

SCHEMA_MAX = 1 << 16  # bytes
GRAMMAR_MAX = 1 << 14  # bytes of a Lark grammar
REGEX_MAX = 1 << 12  # bytes
_DIGITS = 16  # of a number, as in llama.cpp

# The library's units of work ("fuel") pass at about 50 per microsecond in a compile and 14 in a step.
LIMITS = LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=100_000,
    max_lexer_states=20_000,  # of 1 to 2 kB each
    max_grammar_size=200_000,
    verbose_errors=False,
)
# Parts of Lark grammars that are not enforced as they read; literals, expressions and comments are skipped.
_LARK_TOKEN = re.compile(
    r'"(?:[^"\\\n]|\\.)*"|/(?!/)(?:[^/\\\n]|\\.)+/|//[^\n]*|\#[^\n]*|(?P<refused>%json|%regex|\btemperature\s*='
    r"|\bmax_tokens\s*=|@\w+|<\[[^\n>]*>|<\|?\w[^\s>]*>)"
)


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar that llguidance accepts; made by the functions of this module.

    Attributes:
        source: the grammar in llguidance's own format.
        digits: limit on the digits of a JSON number before and after the point; 0 is no limit.
        schema: the JSON schema as text, which violation() holds the finished answer to; None for other
            grammars.
    """

    source: str
    digits: int = 0
    schema: str | None = None


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
    parts = {name: json.loads(value.source)["grammars"][0]["json_schema"] for name, value in values.items()}
    rules = [f"{name}: %json {json.dumps(part)}" for name, part in parts.items()]
    digits = max((value.digits for value in values.values()), default=0)
    return _checked(Grammar(LLMatcher.grammar_from_lark("\n".join([text, *rules])), digits), "grammar")


def from_regex(text: str) -> Grammar:
    """Make a grammar of the texts that match a regular expression as a whole.

    Args:
        text: in the syntax of Rust's crate `regex`, without look-around.

    Raises:
        RequestError: the expression is malformed or exceeds a limit.
    """
    _check_size(text, "regex", REGEX_MAX)
    return _checked(Grammar(LLMatcher.grammar_from_regex(text)), "regex")


def from_schema(schema: Mapping[str, object] | str) -> Grammar:
    """Make a grammar of the JSON texts that are valid for a schema, as far as llguidance enforces it.

    Args:
        schema: JSON Schema, parsed or as JSON text. {} allows any value.

    Raises:
        RequestError: the schema is not JSON, is too large, or llguidance rejects it.
    """
    try:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        _check_size(text, "schema", SCHEMA_MAX)
        source = LLMatcher.grammar_from_json_schema(json.dumps(enforceable(text)), overrides=JSON_OPTIONS)
    except (AttributeError, RecursionError, TypeError, ValueError) as error:  # also of malformed keywords
        raise RequestError(f"schema: {as_line(str(error))[:200]}") from None
    longest = max(map(len, re.findall("[0-9]+", text)), default=0)
    return _checked(Grammar(source, max(longest, _DIGITS), text), "schema")


def _checked(grammar: Grammar, notation: str) -> Grammar:
    """Return the grammar if llguidance can compile it."""
    raise_error(notation, with_deep_stack(lambda: LLMatcher.validate_grammar(grammar.source, limits=LIMITS)))
    return grammar


def raise_error(notation: str, message: str) -> None:
    """Raise RequestError with one of llguidance's messages, on one line, unless it is empty."""
    if message:
        line = as_line(message.removeprefix("ERROR: ").replace("<non-verbose/>", ""))
        raise RequestError(f"{notation}: {line[:200]}")


def _check_size(text: str, notation: str, maximum: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise RequestError(f"{notation}: lone surrogate at character {error.start}") from None
    if size > maximum:
        raise RequestError(f"{notation}: {size} bytes are more than {maximum}")
