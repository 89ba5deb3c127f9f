"""Memory estimates, compared with the buffer sizes that llama.cpp logs."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest
from thirteen.convert.pipeline import convert
from thirteen.errors import InsufficientMemoryError
from thirteen.files.gguf.header import read_header
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama import memory_estimate
from thirteen.runtime.llama.memory_estimate import estimate_memory
from thirteen.runtime.profile import PROFILES

pytestmark = pytest.mark.slow

SCRIPT = """
import llama_cpp, sys
from pathlib import Path
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.library import LOG
LOG._callback = llama_cpp.llama_log_callback(lambda level, text, _: print(text.decode(), end="", flush=True))
flash = sys.argv[4] == "True"
options = {"flash_attention": flash, "kv": sys.argv[6], "batch": int(sys.argv[5])}
Engine(sys.argv[1], profile=sys.argv[2], context=int(sys.argv[3]), threads=1, **options).close()
"""


def logged_buffers(model, name, profile):
    """megabytes(name): the buffers of an engine with a profile, of this name but for what is measured."""
    numbers = (profile.flash_attention, profile.batch, profile.kv_name)
    command = [sys.executable, "-c", SCRIPT, str(model), name, str(profile.context), *map(str, numbers)]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def megabytes(name):
        return sum(map(float, re.findall(rf"{name} buffer size = +([0-9.]+) MiB", log))) * 1.048576

    return megabytes


@pytest.mark.parametrize("name", ["llama wide", "llama untied"])
def test_an_embedding_is_repacked_only_where_it_is_the_output_too(base, tmp_path, name):
    model = tmp_path / "model.gguf"
    convert(base(name), model, quantization="IQ4_NL")
    header = read_header(model)
    assert ("output.weight" in header.tensors) == (name == "llama untied")
    assert header.tensors["token_embd.weight"].nbytes > 9_000  # more than the rounding of the log
    repacked = estimate_memory(header, PROFILES["laptop"]).copied_bytes
    megabytes = logged_buffers(
        model, "laptop", replace(PROFILES["laptop"], context=256, flash_attention=True)
    )
    assert repacked / 1e6 == pytest.approx(megabytes("REPACK model"), abs=0.0055)
    small = replace(PROFILES["phone"], context=256, flash_attention=True, kv="f16")
    phone = logged_buffers(model, "phone", small)
    assert phone("REPACK model") == 0 == estimate_memory(header, PROFILES["phone"]).copied_bytes


@pytest.mark.parametrize(
    ("name", "context", "flash", "batch"),
    [
        ("phone", 256, True, 64),
        ("laptop", 2048, True, 64),
        ("laptop", 2048, False, 512),
        ("laptop", 256, False, 64),
        ("laptop", 300, True, 64),
    ],
)
def test_the_estimate_is_what_llama_cpp_logs(smollm2, name, context, flash, batch):
    changes = {"context": context, "flash_attention": flash, "batch": batch}
    profile = replace(PROFILES[name], **changes)
    megabytes = logged_buffers(smollm2, name, profile)
    estimate = estimate_memory(read_header(smollm2), profile)
    assert estimate.weights_bytes / 1e6 == pytest.approx(megabytes("_Mapped model"), abs=0.1)
    assert estimate.copied_bytes / 1e6 == pytest.approx(megabytes("REPACK model"), abs=0.1)
    assert estimate.kv_bytes / 1e6 == pytest.approx(megabytes("KV"), abs=0.01)
    assert estimate.buffer_bytes / 1e6 == pytest.approx(megabytes("compute") + megabytes("output"), abs=0.3)


def test_a_context_beyond_the_trained_one_needs_no_more(smollm2):
    header = read_header(smollm2)
    trained, beyond = (
        estimate_memory(header, replace(PROFILES["phone"], context=n)) for n in (8192, 1 << 20)
    )
    assert trained == beyond
    assert estimate_memory(header, PROFILES["phone"]).total_bytes < trained.total_bytes


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(smollm2, monkeypatch):
    """The message has the numbers; with a little more memory the model answers."""
    estimate = estimate_memory(read_header(smollm2), replace(PROFILES["phone"], context=256))
    enough = estimate.total_bytes - estimate.program_bytes
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda: enough - 1_000_000)
    with pytest.raises(
        InsufficientMemoryError, match=rf"{enough / 1e6:,.0f} MB .* {enough / 1e6 - 1:,.0f} MB are available"
    ):
        Engine(smollm2, profile="phone", context=256, threads=1)
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda: enough)
    with Engine(smollm2, profile="phone", context=256, threads=1) as engine:
        assert engine.answer("1 + 1 =", max_tokens=1).usage.completion_tokens == 1
