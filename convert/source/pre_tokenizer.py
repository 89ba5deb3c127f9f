"""The splitting rules of byte-level BPE, which llama.cpp knows by name.

The name is derived from the rules, so an extended vocabulary is still recognized. Names that stand for the
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
    """llama.cpp's name of the rules in tokenizer.json; FileError if it has none."""
    normalizer, rules = tokenizer.get("normalizer"), rules_of(tokenizer.get("pre_tokenizer"))
    ignore_merges = bool(tokenizer["model"].get("ignore_merges"))
    key = (normalizer["type"] if normalizer else None, rules, ignore_merges)
    if key not in PRE_TOKENIZERS:
        raise FileError(
            f"{path}: unknown splitting rules {rules!r} with normalizer {key[0]} "
            f"and ignore_merges {ignore_merges}; supported: {', '.join(PRE_TOKENIZERS.values())}"
        )
    return PRE_TOKENIZERS[key]


def rules_of(step: Mapping[str, Any] | None) -> tuple[tuple[Any, ...], ...]:
    """Keys of the steps of a normalizer or a pre-tokenizer, which may be a sequence."""
    if step is None:
        return ()
    return tuple(map(_rule, step.get("normalizers", step.get("pretokenizers", [step]))))


def _rule(step: Mapping[str, Any]) -> tuple[Any, ...]:
    """Key of a step; a setting that no known rule has makes it unequal to all of them."""
    values: tuple[Any, ...] = ()
    match kind := step.get("type"):
        case "Split":
            # Every character belongs to a match of a known rule: what is between matches is never there.
            pattern, behavior = step["pattern"], (step.get("behavior"), bool(step.get("invert")))
            usual = "Regex" in pattern and behavior in (("Isolated", False), ("Removed", True))
            values = (pattern.get("Regex", pattern.get("String")), *(() if usual else behavior))
        case "Digits":
            values = (bool(step.get("individual_digits")),)
        case "ByteLevel":
            values = (bool(step.get("use_regex", True)), *filter(None, [step.get("add_prefix_space")]))
        case "Prepend":
            values = (step["prepend"],)
        case "Replace":
            values = (step["pattern"].get("String"), step["content"])
        case "Metaspace":
            values = (step["replacement"], step.get("prepend_scheme"), step.get("split", True))
    return (kind, *values)
