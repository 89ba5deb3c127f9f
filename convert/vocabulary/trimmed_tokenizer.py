"""The metadata of a tokenizer that keeps only some of its tokens.

A text whose original tokens are all kept gets exactly these tokens, renumbered. BPE joins, within a word, the
pair of the lowest rank until no pair has one. The trimmed tokenizer has the merges whose parts and result are
kept, in the original order. Suppose that both tokenizers have the same symbols so far, as they have at the
start, where symbols are bytes. The original joins its pair of the lowest rank. The result lies within a final
token, and no later merge crosses that token's bounds; so it is a result of BPE over that token's own text,
which is kept because the list is closed under merges. The trimmed tokenizer therefore has this merge, and no
merge of a lower rank, as none was added: it joins the same pair. Where the original has no pair left, neither
has the trimmed one. A tokenizer with `ignore_merges` takes a word that is a token as a whole: if the word was
a token and is kept, both do so, and if it was none, both merge. Control and user-defined tokens are found in
the text before all this, the longest first; a text without dropped ones is divided alike.

For a SentencePiece vocabulary the same holds: its merges are the pairs that make a token, its ranks the
scores, and its symbols characters, of which those in a kept token are kept. A character without a token
becomes its bytes in both.
"""

from collections.abc import Mapping
from dataclasses import replace

from gguf import GGUFValueType

from ...errors import FileError
from ...files.gguf.header import Field
from .tokenizer_tables import PREFIX, TokenizerTables, tokenizer_array
from .vocabulary_list import VocabularyList

_BY_TOKEN = {
    "tokens": GGUFValueType.STRING,
    "token_type": GGUFValueType.INT32,
    "scores": GGUFValueType.FLOAT32,
}
# A copy of tokenizer.json, which llama.cpp does not read: it would describe the full vocabulary.
_DROPPED = "tokenizer.huggingface.json"


def trimmed_fields(
    fields: Mapping[str, Field], tables: TokenizerTables, kept: VocabularyList
) -> dict[str, Field]:
    """Metadata of the tokenizer with only the kept tokens, renumbered.

    Args:
        fields: metadata of the full tokenizer.
        tables: its tables.
        kept: a list that check_list() accepts for it.

    Raises:
        FileError: no merge is left, which llama.cpp cannot load, or the scores are not one per token.
    """
    changed = {}
    if tables.scores is None:
        merges = [
            f"{tables.tokens[left]} {tables.tokens[right]}"
            for left, right, _ in tables.merges_among(kept.tokens).tolist()
        ]
        if not merges:
            raise FileError(f"{tables.where}: {len(kept.tokens)} kept tokens leave no merge")
        changed[f"{PREFIX}merges"] = replace(fields[f"{PREFIX}merges"], value=merges)
    new_ids = {old: new for new, old in enumerate(kept.tokens)}
    for name, element in _BY_TOKEN.items():
        if (key := PREFIX + name) in fields:
            values = tokenizer_array(fields, name, element, tables.where)
            if len(values) != kept.of:
                raise FileError(f"{tables.where}: {key} has {len(values)} values for {kept.of} tokens")
            changed[key] = replace(fields[key], value=[values[token] for token in kept.tokens])
    for name, token in tables.special_ids.items():
        key = f"{PREFIX}{name}_token_id"
        changed[key] = replace(fields[key], value=new_ids[token])
    return {key: changed.get(key, field) for key, field in fields.items() if key != _DROPPED}
