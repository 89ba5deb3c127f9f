"""The list of kept tokens in the metadata of a file, by which anyone can map its tokens back."""

from dataclasses import replace

from gguf import GGUFValueType

from ...files.gguf.header import Field, Header, read_header
from ...files.gguf.metadata import CheckedMetadata
from ..source.checkpoint import Checkpoint, GgufCheckpoint
from .trimmed_checkpoint import TrimmedCheckpoint
from .vocabulary_list import MAX_TOKENS, VocabularyList, check_tokens

PREFIX = "thirteen.vocabulary."
_U32, _TEXT, _ARRAY = GGUFValueType.UINT32, GGUFValueType.STRING, GGUFValueType.ARRAY
_TOKENS = "tokenizer.ggml.tokens"


def vocabulary_fields(kept: VocabularyList) -> dict[str, Field]:
    """Metadata of a file that keeps these tokens."""
    values = {
        "kept": Field(len(kept.tokens), _U32),
        "of": Field(kept.of, _U32),
        "tokenizer_sha256": Field(kept.tokenizer_sha256, _TEXT),
        "tokens": Field(list(kept.tokens), _ARRAY, _U32),
    }
    return {PREFIX + key: field for key, field in values.items()}


def read_vocabulary(header: Header) -> VocabularyList | None:
    """Read which tokens of the full vocabulary a GGUF keeps; None if it is not trimmed.

    Raises:
        FileError: the metadata contradicts itself or the file's tokens.
    """
    if not any(key.startswith(PREFIX) for key in header.fields):
        return None
    metadata = CheckedMetadata(header)
    of = metadata.count(f"{PREFIX}of", MAX_TOKENS)
    tokens = metadata.array(f"{PREFIX}tokens", _U32)
    count = len(metadata.array(_TOKENS, _TEXT))
    if len(tokens) != count:
        raise metadata.error(
            f"metadata key '{PREFIX}tokens' has {len(tokens)} ids, but the file has {count} tokens"
        )
    check_tokens(f"{header.path}: metadata key '{PREFIX}tokens'", tokens, of)
    return VocabularyList(tuple(tokens), of, metadata.get(f"{PREFIX}tokenizer_sha256", _TEXT))


def vocabulary_of(base: Checkpoint) -> VocabularyList | None:
    """Which tokens of the full vocabulary a base keeps, also one that was trimmed again; None for all.

    Raises:
        FileError: the list that the base carries is damaged, or has another number of tokens.
    """
    if isinstance(base, TrimmedCheckpoint):
        kept, earlier = base.kept, vocabulary_of(base.full)
        if earlier is None:
            return kept
        return replace(earlier, tokens=tuple(earlier.tokens[token] for token in kept.tokens))
    if base.path.is_dir():
        return None
    return read_vocabulary(base.header if isinstance(base, GgufCheckpoint) else read_header(base.path))
