"""An engine over ik_llama.cpp: it computes as llama.cpp does, whatever clients do."""

from concurrent.futures import ThreadPoolExecutor
from random import Random
from time import sleep
from typing import Any

import numpy as np
import pytest
from thirteen.errors import FileError, RequestError
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama import ik_llama_library, model
from thirteen.runtime.llama.ik_llama_library import IkLlamaLibrary, installed
from thirteen.runtime.options import Options, Request

from ...conftest import EXHAUSTIVE
from ..tiny_decoders import write_decoder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not installed(), reason="ik_llama.cpp is not installed")]

NAMES = ("base", "a", "b")
KEYWORDS: dict[str, Any] = {"threads": 1, "context": 128, "slots": 4, "prefix_bytes": 1 << 20, "queue": 128}
PROMPTS = [tuple(f"Question {n}: what is {n} and {n + 1}? ".encode()) for n in range(8)]
TOKENS = 48


@pytest.fixture(scope="module")
def ik(tiny, loras):
    with Engine(tiny, adapters=loras, library="ik", **KEYWORDS) as engine:
        yield engine


def submit(ik, *asked):
    """Requests of prompts with a number of tokens and an adapter."""
    options = [Options(max_tokens=tokens, adapter=adapter, ignore_end=True) for _, tokens, adapter in asked]
    return ik.submit_all([Request(prompt, one) for (prompt, *_), one in zip(asked, options, strict=True)])


def tokens_of(handle):
    return [token for piece in handle for token in piece.tokens]


def test_predictions_are_those_of_llama_cpp(ik, engine):
    assert ik.plan.settings.library == "ik"
    for adapter in NAMES:
        ours, theirs = (
            [token.logprob for token in one.prompt_logprobs(PROMPTS[0], adapter=adapter)]
            for one in (ik, engine)
        )
        assert np.abs(np.subtract(ours, theirs)).mean() < 0.02


def test_many_clients_get_the_text_of_one(ik):
    """Sequences end in any order and leave holes in the joint KV cache; clients leave."""
    random = Random(13)
    keys = [(number, adapter) for number in range(len(PROMPTS)) for adapter in NAMES]
    texts = {key: tokens_of(*submit(ik, (PROMPTS[key[0]], TOKENS, key[1]))) for key in keys}
    wrong, requests, at_once = 0, 2000 if EXHAUSTIVE else 100, 20
    for _ in range(requests // at_once):
        asked = [(key, random.randint(1, TOKENS)) for key in random.choices(keys, k=at_once)]
        handles = submit(ik, *((PROMPTS[number], length, name) for (number, name), length in asked))
        for handle in handles[::5]:
            handle.abort()
        for at, (key, length) in enumerate(asked):
            wrong += at % 5 > 0 and tokens_of(handles[at]) != texts[key][:length]
    assert wrong <= requests // 100, "rounding depends on what is computed together"
    assert not ik.load.running


def test_a_full_cache_of_all_slots_is_computed(ik):
    prompts = [tuple(Random(seed).choices(range(1, 256), k=100)) for seed in range(8)]
    assert [len(tokens_of(one)) for one in submit(ik, *((p, 28, "base") for p in prompts))] == [28] * 8


def test_it_is_named_for_a_profile_or_a_file_of_another_family(tiny, tmp_path):
    with Engine(tiny, library="ik", profile="phone") as engine:
        assert (engine.plan.settings.kv, engine.plan.settings.repack) == ("f16", False)
    with pytest.raises(RequestError, match="library ik is not used for such a file; leave it out"):
        Engine(write_decoder(tmp_path / "gemma.gguf", "gemma3"), library="ik")


def test_another_version_or_processor_is_refused_before_it_is_loaded(monkeypatch):
    for name, value, message in (
        ("KNOWN_VERSION", "0.1.4", r"ik-llama-cpp-python: 0\.1\.5; pip install ik-llama-cpp-python==0\.1\.4"),
        ("PACKAGE", "no-such-package", "no-such-package: not installed; pip install no-such-package=="),
        ("read_cpuinfo", lambda: ("", {"sse2"}), "needs AVX2, which this processor lacks"),
    ):
        with monkeypatch.context() as patch, pytest.raises(FileError, match=message):
            patch.setattr(ik_llama_library, name, value)
            IkLlamaLibrary()


def test_threads_that_load_it_at_once_get_the_same(monkeypatch):
    """Messages went to the last that was loaded; its callback was freed with the first model's end."""

    def load():
        sleep(0.05)
        return object()

    monkeypatch.setattr(ik_llama_library, "IkLlamaLibrary", load)
    monkeypatch.setattr(model, "LOADED", {})
    with ThreadPoolExecutor() as threads:
        assert len(set(threads.map(model.find_library, ["ik"] * 4))) == 1
