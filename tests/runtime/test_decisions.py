"""How a file is computed: what is given stands, then the table decides, then the memory."""

import json
from dataclasses import replace

import pytest
from gguf import GGMLQuantizationType as Type
from thirteen.errors import FileError, RequestError
from thirteen.files.gguf.header import read_header
from thirteen.lab.random_model import ProbeShape, write_uniform_model
from thirteen.runtime import memory, plan
from thirteen.runtime.defaults import FLASH, IK_STANDARD, MAPPED, STANDARD, find_default
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine_options import PROFILES, EngineOptions
from thirteen.runtime.llama.ik_llama_library import installed
from thirteen.runtime.llama.llama_cpp_library import llama_cpp
from thirteen.runtime.llama.settings import IK, LIBRARIES, LLAMA
from thirteen.runtime.memory import estimate_memory
from thirteen.runtime.plan import EnginePlan, decide_settings

from .fakes import FIXED


def memory_of(header, options, **changes):
    """Bytes that must be available for some settings."""
    estimate = estimate_memory(header, replace(options.settings(), **changes))
    return estimate.total_bytes - estimate.program_bytes


def decided(header, options):
    """Attention, KV type and context."""
    settings = decide_settings(options, header)
    return settings.flash_attention, settings.kv, settings.context


@pytest.fixture(autouse=True)
def available(monkeypatch):
    """available(nbytes): the memory that a process can have."""
    return lambda nbytes: monkeypatch.setattr(memory, "available_bytes", lambda: nbytes)


def test_a_quantized_cache_then_a_shorter_context_where_memory_is_short(smollm2, available):
    header, options = read_header(smollm2), EngineOptions(threads=1)
    for context, kv in ((4096, "f16"), (4096, "q8_0"), (2048, "q8_0"), (1024, "q8_0")):
        available(memory_of(header, options, kv=kv, context=context))
        assert decided(header, options) == (True, kv, context)
    least = memory_of(header, options, kv="q8_0", context=1024)
    available(least - 1_000_000)
    numbers = rf"{least / 1e6:,.0f} MB .* of 1024 \(.*{least / 1e6 - 1:,.0f} MB are available; the phone"
    with pytest.raises(FileError, match=numbers):
        decide_settings(options, header)


def test_what_is_given_and_what_q8_0_cannot_hold_stays_where_memory_is_short(wide_heads, tiny, available):
    """The tiny model's heads have 16 values, and a block of q8_0 has 32."""
    assert decided(read_header(tiny), EngineOptions(profile="phone"))[1] == "f16"
    for path, given in ((wide_heads, {"kv": "f16"}), (wide_heads, {"flash_attention": False}), (tiny, {})):
        header, options = read_header(path), EngineOptions(context=256, batch=64, threads=1, **given)
        available(memory_of(header, options) - 1)
        with pytest.raises(FileError):
            decide_settings(options, header)


def test_the_table_decides_by_processor_type_and_slots():
    for kind, slots, features, way in (
        ("Q4_K", 8, {"AVX2"}, IK_STANDARD),
        ("Q4_K", 9, {"AVX2"}, FLASH),
        ("Q8_0", 1, {"AVX2", "AVX512"}, FLASH),
        ("Q4_K", 9, {"AVX2", "AVX512"}, MAPPED),
        ("Q5_0", 4, {"AVX2", "AMX_INT8"}, IK_STANDARD),
        ("Q5_0", 5, {"AVX2", "AMX_INT8"}, STANDARD),
        ("Q4_K", 1, {"NEON", "DOTPROD"}, FLASH),
    ):
        assert find_default(Type[kind], slots, features, LIBRARIES) == way
        assert find_default(Type[kind], slots, features, (LLAMA,)).library == LLAMA


@pytest.fixture
def q4_k(tmp_path):
    """A file that ik_llama.cpp computes faster."""
    write_uniform_model(
        tmp_path / "q4_k.gguf", ProbeShape(256, 512, 4, 2, 64, 2).all_layers, Type.Q4_K, Type.Q8_0
    )
    return read_header(tmp_path / "q4_k.gguf")


@pytest.mark.skipif(not installed(), reason="ik_llama.cpp is not installed")
def test_the_faster_library_is_left_out_where_something_speaks_against_it(q4_k, monkeypatch):
    monkeypatch.setattr(plan, "build_features", lambda: {"AVX2"})

    def library(**given):
        return decide_settings(EngineOptions(**{"library": "auto"} | given), q4_k).library

    assert library() == library(kv="f16", context=64) == IK
    for given in (
        *({"library": LLAMA}, {"kv": "bf16"}, {"flash_attention": False}, {"repack": False}),
        *({"profile": "phone"}, {"slots": 16}),
    ):
        assert library(**given) == LLAMA
    monkeypatch.setenv("THIRTEEN_LIBRARY", LLAMA)
    assert library(library=None) == LLAMA

    def find_library(name):
        raise FileError(f"{name} cannot be loaded")

    monkeypatch.setattr(plan, "find_library", find_library)
    assert library() == LLAMA
    with pytest.raises(FileError, match="ik cannot be loaded"):
        library(library=IK)


def test_attention_of_a_gpu_is_left_to_llama_cpp(tiny, monkeypatch):
    monkeypatch.setattr("thirteen.runtime.engine_options.gpu_found", lambda: True)
    for flash in (None, True, False):
        options = EngineOptions(gpu_layers="all", flash_attention=flash)
        assert decided(read_header(tiny), options)[:2] == (flash, "f16")


def test_what_cannot_be_is_refused_before_the_file_is_read(tmp_path):
    for options, message in (
        ({"profile": "tablet"}, "profile must be one of laptop, server, phone, not 'tablet'"),
        ({"kv": ["f16"]}, "kv must be one of"),
        ({"context": "many"}, "context must be an integer from 1 to 4194304, not 'many'"),
        ({"prefix_bytes": -1}, "prefix_bytes must be an integer of at least 0, not -1"),
        ({"slots": 513}, "slots must be"),
        ({"slots": 65, "profile": "phone"}, "slots must be at most the 64 tokens of a batch, not 65"),
        ({"kv": "q8_0", "flash_attention": False}, "kv q8_0 needs flash attention"),
        ({"library": "fast"}, r"library must be one of llama\.cpp, ik, auto, not 'fast'"),
        ({"library": "ik", "kv": "bf16"}, "library ik has standard attention with a KV cache in f16"),
        ({"adapters": {"base": "x.gguf"}}, "adapters: the name 'base' is reserved"),
        ({"adapters": {"adapter": "x.gguf"}}, "adapters: the name 'adapter' is reserved"),
        ({"gpu_layers": "ALL"}, "gpu_layers must be an integer from 0 to 65536, not 'ALL'"),
    ):
        with pytest.raises(RequestError, match=message):
            Engine(tmp_path / "missing.gguf", **options)


def test_a_plan_is_printable_and_has_what_is_given(tiny):
    options = EngineOptions(profile="phone", slots=3, adapters={}, queue=5, **FIXED)
    plan = EnginePlan.make(tiny, options)
    settings = plan.settings
    assert (settings.slots, settings.kv, settings.batch, settings.repack) == (3, "f16", 64, False)
    assert settings.context == plan.context_trained < PROFILES["phone"]["context"]
    found = json.loads(json.dumps(plan.json))
    assert found["settings"]["slots"] == 3 and found["queue"] == 5
    assert found["memory"]["total_bytes"] == plan.memory.total_bytes
    assert str(tiny) in str(plan) and "flash_attention: True" in str(plan)


@pytest.mark.parametrize("library", ["llama.cpp", "auto"])
def test_a_plan_loads_and_measures_nothing(library, tiny, monkeypatch, tmp_path):
    """A first answer waited for a measurement; with a second library, for its proof."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    with monkeypatch.context() as patch:
        for name in ("llama_model_load_from_file", "llama_init_from_model"):
            patch.setattr(llama_cpp, name, None)
        plan = EnginePlan.make(tiny, EngineOptions(threads=1, untrusted=False, library=library))
    with Engine(plan) as engine:
        assert engine.plan is plan
    with pytest.raises(TypeError, match="Engine\\(\\) takes no 'slots' beside a plan"):
        Engine(plan, slots=2)
