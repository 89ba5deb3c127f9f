"""Lists of kept tokens for tests."""

from collections.abc import Iterable
from pathlib import Path

from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.vocabulary.tokenizer_tables import TokenizerTables
from thirteen.convert.vocabulary.vocabulary_list import VocabularyList


def tables_of(base: Path) -> TokenizerTables:
    return TokenizerTables.from_fields(open_checkpoint(base).tokenizer, str(base))


def closed_list(tables: TokenizerTables, wanted: Iterable[int]) -> VocabularyList:
    """The wanted tokens, those that no file can lack, and all that these are built from."""
    ids = tables.required_ids | set(wanted)
    ids |= {part for token in ids for part in tables.built_from(token)}
    return VocabularyList(tuple(sorted(ids)), len(tables.tokens), tables.sha256)
