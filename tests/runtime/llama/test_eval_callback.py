"""Taps: they see products and lookups as computed, and the model continues with what they write."""

import ctypes

import gguf
import numpy as np
import pytest
from thirteen.convert.pipeline import convert
from thirteen.runtime.llama.context import Context, ContextParams, Span
from thirteen.runtime.llama.eval_callback import (
    F32,
    GET_ROWS,
    I32,
    MUL_MAT,
    GgmlTensor,
    _rows,
    _tokens,
    _weight,
)
from thirteen.runtime.llama.model import Model
from thirteen.runtime.llama.struct_layouts import _InitParams, ggml_function

from ..conftest import tensors

TOKENS = tuple(range(20, 43))


POINTER, INT64, SIZE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t
ggml_init = ggml_function("ggml_init", POINTER, _InitParams)
ggml_free = ggml_function("ggml_free", None, POINTER)
ggml_new_tensor_1d = ggml_function("ggml_new_tensor_1d", POINTER, POINTER, ctypes.c_int, INT64)
ggml_new_tensor_2d = ggml_function("ggml_new_tensor_2d", POINTER, POINTER, ctypes.c_int, INT64, INT64)
ggml_mul_mat = ggml_function("ggml_mul_mat", POINTER, POINTER, POINTER, POINTER)
ggml_get_rows = ggml_function("ggml_get_rows", POINTER, POINTER, POINTER, POINTER)
ggml_view_2d = ggml_function("ggml_view_2d", POINTER, POINTER, POINTER, INT64, INT64, SIZE, SIZE)
ggml_set_name = ggml_function("ggml_set_name", POINTER, POINTER, ctypes.c_char_p)
ggml_get_data = ggml_function("ggml_get_data", POINTER, POINTER)
ggml_op_desc = ggml_function("ggml_op_desc", ctypes.c_char_p, POINTER)
ggml_tensor_overhead = ggml_function("ggml_tensor_overhead", SIZE)


@pytest.fixture
def ggml():
    context = ggml_init(_InitParams(1 << 16, None, False))
    yield context
    ggml_free(context)


@pytest.fixture(scope="module")
def model(tiny):
    with Model(tiny) as model:
        yield model


def run(model, tap, tokens=TOKENS, embedding_tap=None):
    """The logits after every token, (tokens, vocab), with taps."""
    params = ContextParams(64, 1, 32, 1, outputs=32)
    with Context(model, params, tap=tap, embedding_tap=embedding_tap) as context:
        rows = context.decode([Span(0, 0, tokens, rows=len(tokens))])
        return np.array([context.logits_row(row) for row in rows])


def test_the_tensor_layout_is_that_of_the_library(ggml):
    """Reads tensors made by the library, so a llama.cpp with another layout fails here."""
    weight, inputs = ggml_new_tensor_2d(ggml, F32, 8, 3), ggml_new_tensor_2d(ggml, F32, 8, 5)
    ggml_set_name(weight, b"blk.1.attn_q.weight")
    address = ggml_mul_mat(ggml, weight, inputs)
    product = GgmlTensor.from_address(address)
    assert ggml_op_desc(address) == b"MUL_MAT"
    assert (product.type, product.op, product.buffer, product.flags) == (F32, MUL_MAT, None, 0)
    assert (list(product.ne), list(product.nb)) == ([3, 5, 1, 1], [4, 12, 60, 60])
    assert list(product.src) == [weight, inputs, *[None] * 8]
    assert product.data == ggml_get_data(address)
    assert GgmlTensor.from_address(weight).name == b"blk.1.attn_q.weight"
    assert _weight(product) == "blk.1.attn_q.weight"
    view = GgmlTensor.from_address(ggml_view_2d(ggml, inputs, 4, 2, 32, 40))
    assert (view.view_src, view.view_offs, view.data) == (inputs, 40, ggml_get_data(inputs) + 40)
    assert (
        ggml_tensor_overhead() == 32 + ctypes.sizeof(GgmlTensor) + 16
    )  # ggml_object, then `extra` and padding


def test_a_lookup_is_that_of_the_library(ggml):
    weight, tokens = ggml_new_tensor_2d(ggml, F32, 8, 30), ggml_new_tensor_1d(ggml, I32, 5)
    ggml_set_name(weight, b"token_embd.weight")
    ctypes.memmove(ggml_get_data(tokens), np.array([3, 1, 29, 0, 3], np.int32).tobytes(), 20)
    address = ggml_get_rows(ggml, weight, tokens)
    lookup = GgmlTensor.from_address(address)
    assert ggml_op_desc(address) == b"GET_ROWS"
    assert (lookup.type, lookup.op, list(lookup.src)[:2]) == (F32, GET_ROWS, [weight, tokens])
    assert list(lookup.ne) == [8, 5, 1, 1]
    assert _weight(lookup) == "token_embd.weight"
    assert _tokens(lookup).tolist() == [3, 1, 29, 0, 3]


def test_rows_need_not_be_contiguous(ggml):
    whole = ggml_new_tensor_2d(ggml, F32, 8, 5)
    _rows(GgmlTensor.from_address(whole))[:] = np.arange(40).reshape(5, 8)
    part = _rows(GgmlTensor.from_address(ggml_view_2d(ggml, whole, 3, 4, 32, 40)))
    assert np.array_equal(part, np.arange(40).reshape(5, 8)[1:5, 2:5])


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        (b"blk.0.attn_k.weight", "blk.0.attn_k.weight"),
        (b"CUDA0#blk.12.ffn_down.weight#0", "blk.12.ffn_down.weight"),
        (b"CPU#output.weight", "output.weight"),
        (b"token_embd.weight", "token_embd.weight"),
        (b"blk.0.attn_k.weight.lora_a", None),
        (b"cache_k_l0 (view) (permuted)", None),
        (b"", None),
    ],
)
def test_weights_are_recognized_by_name(name, weight):
    source = GgmlTensor(name=name)
    product = GgmlTensor(op=MUL_MAT)
    product.src[0] = ctypes.addressof(source)
    assert _weight(product) == weight


def test_a_tap_sees_every_product_of_a_weight_with_every_token(model):
    arrays, seen = tensors(), []

    def tap(product):
        expected = product.inputs @ arrays[product.weight].T
        assert np.allclose(product.outputs, expected, rtol=1e-3, atol=1e-3), product.weight
        assert not product.inputs.flags.writeable
        seen.append((product.weight, len(product.inputs)))

    run(model, tap)
    matrices = [name for name, array in arrays.items() if array.ndim == 2]
    assert sorted(seen) == sorted((name, len(TOKENS)) for name in matrices)


def test_a_tap_that_only_reads_changes_nothing(model):
    assert np.allclose(run(model, None), run(model, lambda product: None), rtol=1e-4, atol=1e-4)


def test_the_last_product_is_the_logits(model):
    logits = []
    result = run(
        model,
        lambda product: product.weight == "token_embd.weight" and logits.append(product.outputs.copy()),
    )
    assert np.array_equal(result, logits[0])


def test_the_model_continues_with_what_a_tap_writes(model, tmp_path, write_tiny):
    names = [name for name in tensors() if "ffn_down" in name or "blk.1.attn_q" in name]

    def zero(product):
        if product.weight in names:
            product.outputs[:] = 0

    zeroed = write_tiny(tmp_path / "zeroed.gguf", {}, {name: 0 * tensors()[name] for name in names})
    with Model(zeroed) as other:
        expected = run(other, None)
    assert np.allclose(run(model, zero), expected, rtol=1e-4, atol=1e-4)
    assert not np.allclose(run(model, None), expected, rtol=0.1, atol=0.1)


def test_an_embedding_tap_sees_the_lookup_with_or_without_a_matmul_tap(model):
    tokens, seen, products = (7, 3, 7, 200), [], []

    def record(lookup):
        assert np.array_equal(lookup.outputs, tensors()["token_embd.weight"][list(tokens)])
        assert not lookup.tokens.flags.writeable
        seen.append((lookup.weight, lookup.tokens.tolist()))

    alone = run(model, None, tokens, record)
    with_matmul_tap = run(model, lambda product: products.append(product.weight), tokens, record)
    assert seen == [("token_embd.weight", list(tokens))] * 2
    assert len(products) == 15
    assert np.array_equal(alone, run(model, None, tokens))
    assert np.allclose(with_matmul_tap, alone, rtol=1e-4, atol=1e-4)


def test_the_model_continues_with_what_an_embedding_tap_writes(model, tmp_path, write_tiny):
    embedding = tensors()["token_embd.weight"]
    other = np.random.default_rng(5).normal(0, 0.3, embedding.shape).astype(np.float32)

    def exchange(lookup):
        lookup.outputs[:] = other[lookup.tokens]

    arrays = {"token_embd.weight": other, "output.weight": embedding}
    with Model(write_tiny(tmp_path / "other.gguf", {}, arrays)) as exchanged:
        expected = run(exchanged, None)
    assert np.allclose(run(model, None, embedding_tap=exchange), expected, rtol=1e-4, atol=1e-4)
    assert not np.allclose(run(model, None), expected, rtol=0.1, atol=0.1)


def test_an_exception_of_an_embedding_tap_is_raised(model):
    def refuse(lookup):
        raise ValueError(lookup.weight)

    with pytest.raises(ValueError, match=r"token_embd\.weight"):
        run(model, None, embedding_tap=refuse)


@pytest.mark.parametrize("failure", [ValueError("seven"), KeyboardInterrupt()])
def test_an_exception_of_a_tap_ends_the_computation_and_is_raised(model, failure, capfd):
    seen, broken = [], [True]

    def tap(product):
        seen.append(product.weight)
        if broken[0] and len(seen) == 5:
            raise failure

    with Context(model, ContextParams(64, 1, 32, 1, outputs=32), tap=tap) as context:
        with pytest.raises(type(failure)):
            context.decode([Span(0, 0, TOKENS, rows=len(TOKENS))])
        assert len(seen) == 5
        broken[0] = False
        context.clear(0)
        rows = context.decode([Span(0, 0, TOKENS, rows=len(TOKENS))])
        again = np.array([context.logits_row(row) for row in rows])
    assert np.array_equal(again, run(model, lambda product: None))
    assert capfd.readouterr() == ("", "")


def test_repacked_weights_are_recognized_by_name(tiny, tmp_path):
    """Q4_0 is repacked when it is loaded, after which its bytes are no rows."""
    convert(tiny, tmp_path / "q4.gguf", quantization="Q4_0")
    held = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "q4.gguf").tensors}
    errors = {}

    def tap(product):
        tensor = held[product.weight]
        expected = product.inputs @ gguf.dequantize(tensor.data, tensor.tensor_type).T
        errors[product.weight] = np.linalg.norm(product.outputs - expected) / np.linalg.norm(expected)

    with Model(tmp_path / "q4.gguf") as model:
        run(model, tap)
    assert len(errors) == 15
    assert max(errors.values()) < 0.02  # the inputs are rounded to 8 bits
