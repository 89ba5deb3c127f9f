"""A size that no types reach: the error says what would."""

import re

import pytest
from gguf import GGMLQuantizationType as Type
from thirteen.convert.fit_size import FitSize, parse_file_size
from thirteen.convert.quantize.costs import costs_for
from thirteen.convert.quantize.knapsack import TypeOption
from thirteen.convert.tensors import TensorSpec
from thirteen.errors import OptionError

# A vocabulary of 151,936 rows in Q4_K, 504 bytes each, and one more matrix.
SPECS = {
    "embedding": TensorSpec("embedding", "token_embd.weight", (151_936, 896)),
    "matrix": TensorSpec("matrix", "blk.0.ffn_up.weight", (4864, 896)),
}
OPTIONS = {
    "embedding": [
        TypeOption(Type.Q4_K, 151_936 * 504, 0.1, 1.0),
        TypeOption(Type.Q8_0, 151_936 * 952, 0.0, 2.0),
    ],
    "matrix": [TypeOption(Type.Q4_K, 4864 * 504, 0.1, 1.0)],
}


def refusal(size):
    with pytest.raises(OptionError) as raised:
        FitSize(parse_file_size(size), None, costs_for("x86")).choose_types(SPECS, OPTIONS, 1_000_000)
    return str(raised.value)


@pytest.mark.parametrize(
    ("size", "tokens"), [("79MB", 98_304), ("40MB", 65_536), ("30MB", 49_152), ("12MB", 16_384)]
)
def test_a_size_below_the_smallest_names_the_vocabulary_that_fits(size, tokens):
    refused = refusal(size)
    kept_bytes = 1_000_000 + (tokens + 4864) * 504
    assert refused.endswith(f"; it is possible with {tokens:,} tokens: vocabulary {tokens}")
    assert kept_bytes <= parse_file_size(size).file_bytes(0)


@pytest.mark.parametrize("size", ["5MB", "500MB"])
def test_where_no_vocabulary_helps_none_is_named(size):
    assert re.search(r"the largest [\d,]+ \([\d.]+\)$", refusal(size))
