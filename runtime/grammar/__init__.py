"""Constrained decoding: JSON schemas, Lark grammars, regular expressions."""

from .grammar import Grammar, from_lark, from_regex, from_schema

__all__ = ["Grammar", "from_lark", "from_regex", "from_schema"]
