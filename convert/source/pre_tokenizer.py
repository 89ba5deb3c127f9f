"""The splitting rules of byte-level BPE, which llama.cpp knows by name.

The name is derived from the rules, not from the vocabulary: an extended or retrained vocabulary is still
recognized, and an unknown rule is an error instead of a file that tokenizes wrongly. Names that stand for the
same rules in llama.cpp (src/llama-vocab.cpp) are not told apart: Granite 3 and StarCoder 2 have those of
`smollm`, LFM2 and SmolLM3 those of `llama-bpe`, Qwen3 those of `qwen2`, OLMo 2, Granite 4 and Phi-4 those of
`dbrx`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import FileError

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n%s]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# The words of Llama 3 and Qwen2; %s tells how many digits are together.
WORDS = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s" + _REST % ""
# Qwen 3.5: marks belong to words.
_MARKED = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Words end where a capital follows a small letter. llama.cpp does so between ASCII letters only, and takes
# marks for signs: texts with marks, and with other capitals within words, get other tokens than the source's.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASES = "[^\\r\\n\\p{{L}}\\p{{N}}]?{0}*{1}+{2}|[^\\r\\n\\p{{L}}\\p{{N}}]?{0}+{1}*{2}"
TEKKEN = _CASES.format(_UPPER, _LOWER, "") + r"|\p{N}" + _REST % "/"
GPT_4O = _CASES.format(_UPPER, _LOWER, _CONTRACTIONS + "?") + r"|\p{N}{1,3}" + _REST % "/"
_BYTES = ("ByteLevel", False)
# (normalizer, splitting rules, ignore_merges) -> llama.cpp's name of the pre-tokenizer
PRE_TOKENIZERS = {
    (None, (("Split", WORDS % "{1,3}"), _BYTES), True): "llama-bpe",
    (None, (("Split", WORDS % "{1,3}"), _BYTES), False): "dbrx",
    (None, (("Split", WORDS % ""), _BYTES), False): "stablelm2",
    ("NFC", (("Split", WORDS % ""), _BYTES), False): "qwen2",
    ("NFC", (("Split", _MARKED), _BYTES), False): "qwen35",
    (None, (("Split", TEKKEN), _BYTES), True): "tekken",
    (None, (("Split", GPT_4O), _BYTES), False): "gpt-4o",
    (None, (("Digits", True), ("ByteLevel", True)), False): "smollm",
    (None, (("ByteLevel", True),), False): "gpt-2",
    ("NFC", (("ByteLevel", True),), False): "olmo",
}


def pre_tokenizer_name(path: Path, tokenizer: Mapping[str, Any]) -> str:
    """llama.cpp's name of the rules in tokenizer.json.

    Raises:
        FileError: it has no name for them.
    """
    normalizer, steps = tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer") or {}
    rules = tuple(_rule(step) for step in steps.get("pretokenizers", [steps]))
    ignore_merges = bool(tokenizer["model"].get("ignore_merges"))
    key = (normalizer["type"] if normalizer else None, rules, ignore_merges)
    if key not in PRE_TOKENIZERS:
        raise FileError(
            f"{path}: unknown splitting rules {rules!r} with normalizer {key[0]} "
            f"and ignore_merges {ignore_merges}; supported: {', '.join(PRE_TOKENIZERS.values())}"
        )
    return PRE_TOKENIZERS[key]


def _rule(step: Mapping[str, Any]) -> tuple[Any, ...]:
    """Key of a splitting step; a setting that no known rule has makes it unequal to all of them."""
    match step.get("type"):
        case "Split":
            # Every character belongs to a match of a known rule: what is between matches is never there.
            behavior = (step.get("behavior"), bool(step.get("invert")))
            usual = behavior in (("Isolated", False), ("Removed", True))
            return ("Split", step["pattern"].get("Regex"), *(() if usual else behavior))
        case "Digits":
            return ("Digits", bool(step.get("individual_digits")))
        case "ByteLevel":
            usual = not step.get("add_prefix_space")
            return ("ByteLevel", bool(step.get("use_regex", True)), *(() if usual else ("add_prefix_space",)))
        case other:
            return (other,)
