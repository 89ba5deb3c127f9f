"""Memory estimates, compared with the buffer sizes that llama.cpp logs."""

import re
import subprocess
import sys

import pytest
from thirteen.convert.convert import convert
from thirteen.convert.recipe import Recipe, Uniform
from thirteen.files.gguf.header import read_header
from thirteen.runtime.engine_options import EngineOptions
from thirteen.runtime.memory import estimate_memory

pytestmark = pytest.mark.slow

SCRIPT = """
import llama_cpp, sys
from pathlib import Path
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.llama.llama_cpp_library import LLAMA_CPP
show = lambda level, text, _: print(text.decode(), end="", flush=True)
LLAMA_CPP.log._callback = llama_cpp.llama_log_callback(show)
flash = sys.argv[4] == "True"
options = {"flash_attention": flash, "kv": sys.argv[6], "batch": int(sys.argv[5])}
Engine(sys.argv[1], profile=sys.argv[2], context=int(sys.argv[3]), threads=1, **options).close()
"""


def settings(name, **options):
    return EngineOptions(profile=name, threads=1, **options).settings()


def logged_buffers(model, name, one):
    """megabytes(name): the buffers of an engine with a profile and settings."""
    numbers = (one.context, one.flash_attention, one.batch, one.kv)
    command = [sys.executable, "-c", SCRIPT, str(model), name, *map(str, numbers)]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def megabytes(name):
        return sum(map(float, re.findall(rf"{name} buffer size = +([0-9.]+) MiB", log))) * 1.048576

    return megabytes


@pytest.mark.parametrize("name", ["llama wide", "llama untied"])
def test_an_embedding_is_repacked_only_where_it_is_the_output_too(base, tmp_path, name):
    model = tmp_path / "model.gguf"
    convert(Recipe(base(name), model, Uniform("IQ4_NL")))
    header = read_header(model)
    assert ("output.weight" in header.tensors) == (name == "llama untied")
    assert header.tensors["token_embd.weight"].nbytes > 9_000  # more than the rounding of the log
    repacked = estimate_memory(header, settings("laptop")).copied_bytes
    megabytes = logged_buffers(model, "laptop", settings("laptop", context=256))
    assert repacked / 1e6 == pytest.approx(megabytes("REPACK model"), abs=0.0055)
    phone = logged_buffers(model, "phone", settings("phone", context=256, kv="f16"))
    assert phone("REPACK model") == 0 == estimate_memory(header, settings("phone")).copied_bytes


@pytest.mark.parametrize(
    ("name", "context", "flash", "batch"),
    [
        ("phone", 300, True, 64),  # no multiple of the cells that are allocated at once
        ("laptop", 2048, False, 512),
        pytest.param("laptop", 300, True, 64, marks=pytest.mark.exhaustive),
    ],
)
def test_the_estimate_is_what_llama_cpp_logs(smollm2, name, context, flash, batch):
    one = settings(name, context=context, flash_attention=flash, batch=batch)
    megabytes = logged_buffers(smollm2, name, one)
    estimate = estimate_memory(read_header(smollm2), one)
    assert estimate.weights_bytes / 1e6 == pytest.approx(megabytes("_Mapped model"), abs=0.1)
    assert estimate.copied_bytes / 1e6 == pytest.approx(megabytes("REPACK model"), abs=0.1)
    assert estimate.kv_bytes / 1e6 == pytest.approx(megabytes("KV"), abs=0.01)
    assert estimate.buffer_bytes / 1e6 == pytest.approx(megabytes("compute") + megabytes("output"), abs=0.3)


def test_a_context_beyond_the_trained_one_needs_no_more(smollm2):
    header = read_header(smollm2)
    trained, beyond = (estimate_memory(header, settings("phone", context=n)) for n in (8192, 1 << 20))
    assert trained == beyond
