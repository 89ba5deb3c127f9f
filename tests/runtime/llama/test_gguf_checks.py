"""Wrong headers: each one is refused in one line or runs, and none ends the process."""

from dataclasses import replace

import gguf
import numpy as np
import pytest
from thirteen.errors import FileError
from thirteen.files.gguf.header import read_header
from thirteen.files.gguf.model_shape import read_model_shape
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.gguf_checks import check_model

from ..fixed_settings import FIXED
from .gguf_mutations import RawField, adapter_file, model_file

KINDS = gguf.GGUFValueType
U32, F32, TEXT, ARRAY = KINDS.UINT32, KINDS.FLOAT32, KINDS.STRING, KINDS.ARRAY
NAMES = [f"token {n}" for n in range(259)]
ONES = np.ones((64, 64), np.float32)
HEAD_SIZES = ("llama.attention.key_length", "llama.attention.value_length", "llama.rope.dimension_count")


def u32(value, *keys):
    return {f"llama.{key}": (value, U32, None) for key in keys}


# Changed keys, changed tensors, a pattern of the error. Comments quote the assertions that llama.cpp fails.
WRONG = {
    "no layers": (u32(0, "block_count"), {}, "block_count"),  # n_layer_all > 0
    "too many layers": (u32(513, "block_count"), {}, "block_count"),  # <= LLAMA_MAX_LAYERS
    "a layer more": (u32(3, "block_count"), {}, r"blk\.2"),
    "no heads": (u32(0, "attention.head_count"), {}, "head_count"),
    "heads that do not divide": (
        u32(3, "attention.head_count_kv"),
        {},
        "4 heads do not divide among 3 key-value heads",
    ),
    "an odd head": (
        dict.fromkeys(HEAD_SIZES, (15, U32, None)),
        {},
        "the head dimension is 15; it must be positive and even",
    ),
    "another head": (u32(8, "attention.value_length"), {}, "value_length"),  # n_embd_head == k
    "another rotation": (u32(8, "rope.dimension_count"), {}, "dimension_count"),  # == n_rot
    "experts": (u32(5000, "expert_count"), {}, "expert_count"),  # <= LLAMA_MAX_EXPERTS
    "experts used": (u32(2, "expert_used_count"), {}, "expert_used"),  # used <= n_expert
    "next tokens": (u32(9, "nextn_predict_layers"), {}, "nextn"),  # <= n_layer_all
    "a scaling": ({"llama.rope.scaling.type": ("zz", TEXT, None)}, {}, "scaling"),  # != UNSPECIFIED
    "not causal": ({"llama.attention.causal": (False, KINDS.BOOL, None)}, {}, "causal"),
    "negative epsilon": ({"llama.attention.layer_norm_rms_epsilon": (-1.0, F32, None)}, {}, "epsilon"),
    "a double token": ({"tokenizer.ggml.tokens": (["a", *NAMES[1:-1], "a"], ARRAY, TEXT)}, {}, "2 times"),
    "double to a zero": ({"tokenizer.ggml.tokens": (["a\0b", "a", *NAMES[2:]], ARRAY, TEXT)}, {}, "2 times"),
    "double when named": (
        {"tokenizer.ggml.tokens": (["", "[EMPTY_0]", *NAMES[2:]], ARRAY, TEXT)},
        {},
        "2 times",
    ),  # id_to_token.size() == token_to_id.size()
    "a long name of a control token": (
        {"tokenizer.ggml.tokens": ([*NAMES[:-1], "<" + 256 * "x"], ARRAY, TEXT)},
        {},
        "a control token has 257 characters; at most 128",
    ),
    "many control tokens": (  # 20,000 took 13 seconds to load, and held the server at each question
        {
            "tokenizer.ggml.tokens": ([*NAMES, *(f"<{n}>" for n in range(20_000))], ARRAY, TEXT),
            "tokenizer.ggml.token_type": ([3] * (len(NAMES) + 20_000), ARRAY, KINDS.INT32),
        },
        {},
        "20259 control tokens; at most 16384",
    ),
    "few types": ({"tokenizer.ggml.token_type": ([1], ARRAY, KINDS.INT32)}, {}, "259 tokens but 1"),
    "few tokens": (
        {
            "tokenizer.ggml.tokens": (NAMES[:9], ARRAY, TEXT),
            "tokenizer.ggml.token_type": ([1] * 9, ARRAY, KINDS.INT32),
        },
        {},
        "token_embd",
    ),
    "tokens that are numbers": ({"tokenizer.ggml.tokens": ([1], ARRAY, U32)}, {}, "STRING"),
    "spaces in words": ({"tokenizer.ggml.pre": ("whitespace", TEXT, None)}, {}, "pre-tokenizer"),
    "another tokenizer": ({"tokenizer.ggml.model": ("no_vocab", TEXT, None)}, {}, "tokenizer"),
    "no bytes": ({"tokenizer.ggml.model": ("llama", TEXT, None)}, {}, "no token for the byte <0x01>"),
    "an endless loop": ({"tokenizer.ggml.model": ("rwkv", TEXT, None)}, {}, "no token for the byte b"),
    "an encoder": ({"general.architecture": ("t5encoder", TEXT, None)}, {}, "t5encoder is an encoder; text"),
    "another family": ({"general.architecture": ("gpt2", TEXT, None)}, {}, "gpt2.block_count"),
    "a family that is a number": ({"general.architecture": (1, U32, None)}, {}, "architecture"),
    "an adapter": ({"general.type": ("adapter", TEXT, None)}, {}, "adapter"),
    "a part": ({"split.count": (2, KINDS.UINT16, None)}, {}, "split"),
    "a part without a count": ({"split.no": (0, KINDS.UINT16, None)}, {}, r"split\.count"),
    "a count of another type": ({"split.count": (1, U32, None)}, {}, r"split\.count"),
    "an empty key": ({"": (1, U32, None)}, {}, "empty"),  # !key.empty()
    # gguf_find_key() compares C strings, and takes the first.
    "a zero byte": ({"llama.block_count\0": (5000, U32, None)}, {}, "characters other than"),
    "a tensor to a zero": ({}, {"output_norm.weight\0": np.ones(64, np.float32)}, "characters other than"),
    "a missing key": ({"llama.embedding_length": None}, {}, "embedding_length"),
    "a text for a number": ({"llama.embedding_length": ("64", TEXT, None)}, {}, "embedding_length"),
    "a template that is a number": ({"tokenizer.chat_template": (1, U32, None)}, {}, "chat_template"),
    "a template that is broken": ({"tokenizer.chat_template": ("{%", TEXT, None)}, {}, "chat template"),
    "a missing tensor": ({}, {"blk.1.ffn_up.weight": None}, r"blk\.1\.ffn_up"),
    "a norm in half": ({}, {"output_norm.weight": np.ones(64, np.float16)}, "output_norm"),  # binary op types
    "a matrix of integers": ({}, {"blk.0.attn_q.weight": ONES.astype(np.int8)}, "attn_q"),
    "a matrix turned": ({}, {"blk.0.ffn_up.weight": np.ones((64, 96), np.float32)}, "ffn_up"),
    "a stray tensor": ({}, {"blk.0.ffn_gate_inp.weight": ONES}, "ffn_gate_inp"),
    "not a number": ({}, {"output_norm.weight": np.full(64, np.nan, np.float32)}, "finite"),
}


@pytest.mark.parametrize("name", WRONG)
def test_every_wrong_header_is_refused_by_name_in_one_line(tmp_path, write_tiny, name):
    keys, arrays, pattern = WRONG[name]
    path = write_tiny(tmp_path / "wrong.gguf", keys, arrays)
    with pytest.raises(FileError, match=rf"^[^\n]*\.gguf: [^\n]*{pattern}[^\n]*$"):
        use(path)


def use(path):
    with Engine(path, context=64, slots=1, **FIXED) as engine:
        engine.answer("a", max_tokens=1)


def test_a_value_as_long_as_the_file_is_quoted_in_part(tmp_path, write_tiny):
    path = write_tiny(tmp_path / "a.gguf", {"tokenizer.ggml.pre": ("x" * 100_000, TEXT, None)})
    with pytest.raises(FileError, match="unknown pre-tokenizer type: 'xxx") as caught:
        use(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("alignment", [1, 2, 4, 8, 16])
def test_data_between_multiples_of_32_is_refused(tmp_path, alignment):
    """ggml asserts the address of every mapped tensor: the process ended."""
    original = model_file("llama")
    refused = 0
    for pad in range(32):
        fields = (
            RawField(b"general.alignment", U32, alignment),
            RawField(b"pad", TEXT, bytes(pad)),
            *original.fields,
        )
        path = tmp_path / "a.gguf"
        path.write_bytes(replace(original, fields=fields).encode())
        header = read_header(path)
        if any(tensor.offset % 32 for tensor in header.tensors.values()):
            with pytest.raises(FileError, match="not a multiple of 32"):
                check_model(header)
            refused += 1
        else:
            check_model(header)
    assert refused == 32 - alignment


def test_a_merged_file_with_the_keys_of_its_parts_is_accepted(tmp_path, write_tiny):
    """llama-gguf-split --merge, which the error recommends, leaves them with a count of 0."""
    keys = {"split.count": (0, KINDS.UINT16, None), "split.no": (0, KINDS.UINT16, None)}
    check_model(read_header(write_tiny(tmp_path / "a.gguf", keys)))


def test_only_the_keys_of_the_own_architecture_count(tmp_path, write_tiny):
    """Keys of any prefix were read: one of them could hide how much memory a model needs."""
    evil = {
        f"evil.{key}": (1, U32, None) for key in ("block_count", "attention.head_count", "context_length")
    }
    plain, odd = write_tiny(tmp_path / "plain.gguf"), write_tiny(tmp_path / "odd.gguf", evil)
    assert read_model_shape(read_header(odd)) == read_model_shape(read_header(plain))


@pytest.mark.parametrize("key", ["adapter.lora.alpha\0", "general.architecture\0", "adapter.type\0"])
def test_an_adapter_passes_the_same_checks(tmp_path, key):
    original = adapter_file()
    fields = (RawField(key.encode(), U32, 1), *original.fields)
    path = tmp_path / "a.gguf"
    path.write_bytes(replace(original, fields=fields).encode())
    with pytest.raises(FileError, match="characters other than"):
        read_header(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(FileError, match=str(path)):
            Engine(path)
