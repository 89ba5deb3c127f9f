"""Constrained decoding: JSON schemas, GBNF and Lark grammars, regular expressions."""

from .grammar import Grammar, from_gbnf, from_lark, from_regex, from_schema

__all__ = ["Grammar", "from_gbnf", "from_lark", "from_regex", "from_schema"]
