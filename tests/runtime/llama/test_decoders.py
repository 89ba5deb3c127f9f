"""Decoders of many architectures: an engine computes what llama.cpp computes, and knows their memory."""

import ctypes
import re
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
from thirteen.errors import FileError
from thirteen.files.gguf.header import read_header
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.load_probe import probe_model_files
from thirteen.runtime.native.llama_cpp_library import LLAMA_CPP
from thirteen.runtime.plan.memory import estimate_memory
from thirteen.runtime.request import Request

from ..fixed_settings import FIXED
from ..gguf_adapters import write_factors
from ..tiny_decoders import DECODERS, VOCABULARY, write_decoder

PROMPT = tuple(5 + n * 7 % 280 for n in range(100))
MORE = (*PROMPT, 9, 8, 7, 6)
# A window, a state, both kinds of layers, experts, latent attention.
FEW = ("gemma3", "mamba", "lfm2", "jamba", "qwen3moe", "deepseek2")


def decode_alone(path: Path, tokens: tuple[int, ...], answer: int) -> tuple[np.ndarray, list[int]]:
    """Logits after the last tokens, and the likeliest tokens that follow, by llama.cpp's own functions."""
    params = llama_cpp.llama_model_default_params()
    params.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(bytes(path), params)
    assert model
    native = llama_cpp.llama_context_default_params()
    native.n_ctx = native.n_batch = native.n_ubatch = 512
    native.n_threads = native.n_threads_batch = 1
    native.type_k = native.type_v = llama_cpp.GGML_TYPE_F32
    native.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, native)
    assert context
    given, rows, said = tokens, [], []
    for _ in range(answer):
        ids = (llama_cpp.llama_token * len(given))(*given)
        assert not llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, len(given)))
        rows.append(np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (VOCABULARY,)).copy())
        given = (int(rows[-1].argmax()),)
        said += given
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return rows[0], said


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FEW else pytest.mark.exhaustive) for name in DECODERS]
)
def test_an_engine_computes_what_llama_cpp_computes(tmp_path, monkeypatch, name):
    path = write_decoder(tmp_path / "a.gguf", name)
    logged: list[str] = []
    keep = llama_cpp.llama_log_callback(lambda level, text, _: logged.append(text.decode()))
    monkeypatch.setattr(LLAMA_CPP.log, "_callback", keep)
    options = {**FIXED, "untrusted": False, "context": 256, "repack": False}
    with Engine(path, slots=2, batch=64, **options) as engine:
        monkeypatch.undo()
        LLAMA_CPP.log.install()
        sizes = re.findall(r"(?:KV|RS) buffer size = +([\d.]+) MiB", "".join(logged))
        estimate = estimate_memory(read_header(path), engine.plan.settings).kv_bytes
        assert estimate == pytest.approx(sum(map(float, sizes)) * 2**20, rel=0.01, abs=2e4)
        said, cached = [], []
        # Again, continued, shorter, and parting from it twice at one place.
        for tokens in (PROMPT, PROMPT, MORE, MORE[:60], (*MORE[:90], 3), (*MORE[:90], 4)):
            logits, alone = decode_alone(path, tokens, 6)
            (handle,) = engine.submit_all([Request(tokens, 6, ignore_end=True)])
            answer = [token for piece in handle for token in piece.tokens]
            cached.append(handle.answer().usage.cached_tokens)
            said.append((answer, alone))
            np.testing.assert_allclose(engine.logits(tokens)[-1], logits, atol=1e-3)
    assert [one for one, _ in said] == [other for _, other in said]
    assert cached[:3] == [0, 99, 100 if engine.model.cuts_states else 99] and cached[5] == 90
    assert ctypes.sizeof(keep)  # the library has only its address


@pytest.mark.slow
@pytest.mark.parametrize(("name", "matrix"), [("gemma3", "blk.5.attn_q"), ("jamba", "blk.0.ssm_in")])
def test_a_decoder_and_its_adapter_pass_the_trial(tmp_path, name, matrix):
    path = write_decoder(tmp_path / "a.gguf", name)
    rows, columns = read_header(path).tensors[f"{matrix}.weight"].shape
    factors = {f"{matrix}.weight": (np.ones((2, columns)), np.ones((rows, 2)))}
    adapter = write_factors(tmp_path / "lora.gguf", factors, name)
    probe_model_files(path, [adapter], untrusted=True)
    options = {**FIXED, "untrusted": False, "context": 64}
    with Engine(path, **options) as plain, Engine(path, adapter=adapter, **options) as adapted:
        assert np.abs(plain.logits(PROMPT[:9]) - adapted.logits(PROMPT[:9])).max() > 1e-3


@pytest.mark.slow
def test_an_unknown_architecture_is_refused_in_the_words_of_the_library(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(write_decoder(tmp_path / "b.gguf", "gemma").read_bytes().replace(b"gemma", b"gemmy"))
    with pytest.raises(FileError, match=r"a\.gguf: .*unknown model architecture: 'gemmy'"):
        probe_model_files(path, untrusted=True)
