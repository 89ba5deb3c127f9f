"""Decoders of many architectures: an engine computes what llama.cpp computes, and knows their memory."""

import re

import llama_cpp
import numpy as np
import pytest
from thirteen.files.gguf.header import read_header
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.llama_cpp_library import LLAMA_CPP
from thirteen.runtime.llama.settings import Settings
from thirteen.runtime.memory import estimate_memory
from thirteen.runtime.options import Options, Request
from thirteen.runtime.trial import try_files

from ..fakes import FIXED
from ..gguf_adapters import write_factors
from ..tiny_decoders import DECODERS, VOCABULARY, write_decoder

CONTEXT = 512
PROMPT = tuple(5 + n * 7 % 280 for n in range(100))
MORE = (*PROMPT, 9, 8, 7, 6)
# A window, a state, both kinds of layers, experts, latent attention.
FEW = ("gemma3", "mamba", "lfm2", "jamba", "qwen3moe", "deepseek2")


def decode_alone(path, tokens, answer):
    """By llama.cpp's own functions: the logits before each token of an answer, and the bytes of a cache."""
    logged: list[str] = []
    log = llama_cpp.llama_log_callback(lambda level, text, _: logged.append(text.decode()))
    llama_cpp.llama_log_set(log, None)
    params = llama_cpp.llama_model_default_params()
    params.use_extra_bufts = False
    model = llama_cpp.llama_model_load_from_file(bytes(path), params)
    native = llama_cpp.llama_context_default_params()
    native.n_ctx = native.n_batch = native.n_ubatch = CONTEXT
    native.n_threads = native.n_threads_batch = 1
    native.type_k = native.type_v = llama_cpp.GGML_TYPE_F32
    native.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, native)
    rows = []
    for given in (tokens, *((token,) for token in answer[:-1])):
        ids = (llama_cpp.llama_token * len(given))(*given)
        assert not llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, len(given)))
        rows.append(np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (VOCABULARY,)).copy())
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    LLAMA_CPP.log.install()  # the other one ends with this function
    sizes = re.findall(r"(KV|RS) buffer size = +([\d.]+) MiB", "".join(logged))
    return rows, sum(float(size) / (2 if kind == "KV" else 1) for kind, size in sizes) * 2**20


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FEW else pytest.mark.exhaustive) for name in DECODERS]
)
def test_an_engine_computes_what_llama_cpp_computes(tmp_path, name):
    path = write_decoder(tmp_path / "a.gguf", name)
    cached = []
    with Engine(path, slots=2, batch=64, context=256, repack=False, **FIXED) as engine:
        # Again, continued, shorter, and parting from it twice at one place.
        for tokens in (PROMPT, PROMPT, MORE, MORE[:60], (*MORE[:90], 3), (*MORE[:90], 4)):
            handle = engine.submit(Request(tokens, Options(max_tokens=6, ignore_end=True)))
            answer = [token for piece in handle for token in piece.tokens]
            cached.append(handle.answer().usage.cached_tokens)
            rows, kv_bytes = decode_alone(path, tokens, answer)
            np.testing.assert_allclose(engine.logits(tokens)[-1], rows[0], atol=1e-3)
            # Of two tokens that are nearly as likely, rounding chooses, and it differs between processors.
            for token, logits in zip(answer, rows, strict=True):
                assert logits[token] > logits.max() - 0.01
    assert cached[:3] == [0, 99, 100 if engine.model.cuts_states else 99] and cached[5] == 90
    alone = Settings(CONTEXT, slots=1, batch=CONTEXT, threads=1)
    assert estimate_memory(read_header(path), alone).kv_bytes == pytest.approx(kv_bytes, rel=0.01, abs=2e4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "matrix"), [("gemma3", "blk.5.attn_q"), ("jamba", "blk.0.ssm_in")])
def test_a_decoder_and_its_adapter_pass_the_trial(tmp_path, name, matrix):
    path = write_decoder(tmp_path / "a.gguf", name)
    rows, columns = read_header(path).tensors[f"{matrix}.weight"].shape
    factors = {f"{matrix}.weight": (np.ones((2, columns)), np.ones((rows, 2)))}
    adapter = write_factors(tmp_path / "lora.gguf", factors, name)
    try_files(path, [adapter], untrusted=True)
    with Engine(path, context=64, adapters={"a": adapter}, **FIXED) as engine:
        plain, adapted = (engine.prompt_logprobs(PROMPT[:9], adapter=one) for one in ("base", "a"))
    assert max(abs(a.logprob - b.logprob) for a, b in zip(plain, adapted, strict=True)) > 1e-3
