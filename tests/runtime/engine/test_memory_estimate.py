"""What memory a model needs, told from its header, beside what llama.cpp sets aside and says of itself."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest
from thirteen.convert.pipeline import convert
from thirteen.errors import NoRoomError, RequestError
from thirteen.files.gguf_header import read_header
from thirteen.runtime.engine import memory_estimate as module
from thirteen.runtime.engine.available_memory import available_bytes
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.memory_estimate import estimate_memory
from thirteen.runtime.profile import PROFILES
from thirteen.workflows.inspect_gguf import inspect_gguf, memory_profiles

SAID = """
import ctypes, llama_cpp, sys
from pathlib import Path
from thirteen.runtime.engine.engine import Engine
keep = llama_cpp.llama_log_callback(lambda level, text, _: print(text.decode(), end="", flush=True))
from thirteen.runtime.llama import library
llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
Engine(sys.argv[1], profile=sys.argv[2], context=int(sys.argv[3]), threads=1).close()
"""
GIB = 1 << 30


def said_by_llama_cpp(model, profile, context):
    command = [sys.executable, "-c", SAID, str(model), profile, str(context)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def megabytes(name):
        return sum(map(float, re.findall(rf"{name} buffer size = +([0-9.]+) MiB", said))) * 1.048576

    return megabytes


@pytest.mark.parametrize("name", ["llama wide", "llama untied"])
def test_an_embedding_is_laid_out_anew_only_where_it_is_the_output_too(base, tmp_path, name):
    model = tmp_path / "model.gguf"
    convert(base(name), model, type_="IQ4_NL")
    header = read_header(model)
    assert ("output.weight" in header.tensors) == (name == "llama untied")
    assert header.tensors["token_embd.weight"].nbytes > 9_000  # more than the rounding of what llama.cpp says
    told = estimate_memory(header, PROFILES["laptop"]).copied_bytes
    assert told / 1e6 == pytest.approx(said_by_llama_cpp(model, "laptop", 256)("REPACK model"), abs=0.0055)


@pytest.mark.parametrize(("profile", "context"), [("phone", 256), ("phone", 8192), ("laptop", 2048)])
def test_what_is_set_aside_is_what_llama_cpp_says(smollm2, profile, context):
    megabytes = said_by_llama_cpp(smollm2, profile, context)
    told = estimate_memory(read_header(smollm2), replace(PROFILES[profile], context=context))
    assert told.weights_bytes / 1e6 == pytest.approx(megabytes("_Mapped model"), abs=0.1)
    assert told.copied_bytes / 1e6 == pytest.approx(megabytes("REPACK model"), abs=0.1)
    assert told.kv_bytes / 1e6 == pytest.approx(megabytes("KV"), abs=0.1)
    assert told.buffer_bytes / 1e6 == pytest.approx(megabytes("compute") + megabytes("output"), abs=0.3)


def test_a_context_beyond_what_the_model_was_trained_for_needs_no_more(smollm2):
    header = read_header(smollm2)
    trained, beyond = (
        estimate_memory(header, replace(PROFILES["phone"], context=n)) for n in (8192, 1 << 20)
    )
    assert trained == beyond
    assert estimate_memory(header, PROFILES["phone"]).total_bytes < trained.total_bytes


def test_inspect_tells_it_for_every_profile_and_for_a_room_of_ones_own(smollm2, tmp_path):
    found = inspect_gguf(smollm2).memory
    assert found.keys() == PROFILES.keys()
    assert found["phone"].total_bytes < found["laptop"].total_bytes
    (own,) = inspect_gguf(smollm2, memory_profiles("phone", 4096, "f16")).memory.values()
    assert (own.context, own.kv) == (4096, "f16")
    assert (
        own.parts.kv_bytes
        == estimate_memory(read_header(smollm2), replace(PROFILES["phone"], context=4096, kv="f16")).kv_bytes
    )
    assert "4096 tokens in f16" in own.text


@pytest.mark.parametrize("wrong", [("tablet", None, None), (None, None, "q3")])
def test_a_profile_or_type_that_there_is_not_is_refused(wrong):
    with pytest.raises(RequestError, match=r"tablet|q3"):
        memory_profiles(*wrong)


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(smollm2, monkeypatch):
    """The numbers at odds are in the message; a little more memory, and it answers."""
    told = estimate_memory(read_header(smollm2), replace(PROFILES["phone"], context=256))
    enough = told.total_bytes - told.program_bytes
    monkeypatch.setattr(module, "available_bytes", lambda: enough - 1_000_000)
    with pytest.raises(NoRoomError, match=rf"{enough / 1e6:,.0f} MB .* {enough / 1e6 - 1:,.0f} MB are there"):
        Engine(smollm2, profile="phone", context=256, threads=1)
    monkeypatch.setattr(module, "available_bytes", lambda: enough)
    with Engine(smollm2, profile="phone", context=256, threads=1) as engine:
        assert engine.answer("1 + 1 =", max_tokens=1).usage.completion_tokens == 1


def test_what_is_left_is_the_least_of_machine_group_and_limit(tmp_path):
    """As the kernel writes it: cgroup v1, v2, a group in a group, none."""
    for folder in ("proc/self", "sys/fs/cgroup/memory/a/b", "sys/fs/cgroup/c"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    8388608 kB\n")
    assert available_bytes(tmp_path) == 8 * GIB
    v1 = tmp_path / "sys/fs/cgroup/memory"
    for folder, limit in ((v1, 1 << 63), (v1 / "a", 3 * GIB), (v1 / "a/b", 5 * GIB)):
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (folder / "memory.usage_in_bytes").write_text(f"{2 * GIB}\n")
        (folder / "memory.stat").write_text(f"cache 1\ntotal_cache {GIB // 2}\n")
    (tmp_path / "proc/self/cgroup").write_text("8:cpu:/\n4:memory:/a/b\n0::/\n")
    assert available_bytes(tmp_path) == 3 * GIB - 2 * GIB + GIB // 2
    v2 = tmp_path / "sys/fs/cgroup/c"
    (v2 / "memory.max").write_text("max\n")
    (v2 / "memory.current").write_text(f"{GIB}\n")
    (v2 / "memory.stat").write_text("anon 1\nfile 4096\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/c\n")
    assert available_bytes(tmp_path) == 8 * GIB
    (v2 / "memory.max").write_text(f"{2 * GIB}\n")
    assert available_bytes(tmp_path) == GIB + 4096


def test_a_system_that_does_not_tell_is_none(tmp_path):
    assert available_bytes(tmp_path) is None
