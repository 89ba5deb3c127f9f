"""Constrained decoding: GBNF grammars and JSON schemas."""

from .grammar import Grammar, from_gbnf, from_schema

__all__ = ["Grammar", "from_gbnf", "from_schema"]
