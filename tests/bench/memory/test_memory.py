"""Memory and load time in a fresh process, with real files."""

import json
import subprocess
import sys
from dataclasses import fields, replace

import pytest
from thirteen.bench.memory.memory import MemoryUse, measure_memory, memory_table
from thirteen.errors import FileError, RequestError
from thirteen.models.embedded import embedded
from thirteen.quality.workload import Workload

pytestmark = pytest.mark.slow

SMALL = Workload(prompt_tokens=4, decode_tokens=1, threads=1)


@pytest.fixture(scope="module")
def embedded_memory():
    """Memory use of the embedded model."""
    return measure_memory(embedded(), None, SMALL)


def test_peak_rss_is_about_the_file_and_its_buffers(embedded_memory):
    file_bytes = embedded().stat().st_size
    assert 0 < embedded_memory.load_s < embedded_memory.warm_start_s
    grown = embedded_memory.peak_rss_bytes - embedded_memory.steady.program_bytes
    # Every weight was touched; repacked weights are resident twice.
    assert 0.9 * file_bytes < grown < 3 * file_bytes + 500e6


def test_the_footprint_has_a_small_rest(embedded_memory):
    file_bytes, steady = embedded().stat().st_size, embedded_memory.steady
    parts = (steady.program_bytes, steady.mapped_bytes, steady.copied_bytes, steady.kv_bytes)
    assert sum(parts) + steady.other_bytes == steady.rss_bytes
    assert 0.2 * file_bytes < steady.mapped_bytes <= file_bytes + 4096
    assert steady.mapped_bytes + steady.copied_bytes > 0.9 * file_bytes
    assert 0 < steady.pss_bytes <= steady.rss_bytes <= embedded_memory.peak_rss_bytes + 8e6
    assert abs(steady.other_bytes) < 300e6


@pytest.mark.exhaustive
def test_memory_of_the_parent_process_does_not_count(tiny):
    """getrusage of a child started at its parent's peak, so a tiny model appeared to take gigabytes."""
    ballast = bytearray(b"x") * 1_000_000_000
    assert measure_memory(tiny, None, SMALL).peak_rss_bytes < len(ballast) / 2


def test_bad_inputs_are_the_errors_of_the_process(tiny, not_a_model):
    for error, message, model, adapter, work in (
        (FileError, r"no\.gguf", not_a_model, None, SMALL),
        (FileError, "tiny", tiny, tiny, SMALL),
        (RequestError, "300 prompt and 1 decode", tiny, None, replace(SMALL, prompt_tokens=300)),
    ):
        with pytest.raises(error, match=message):
            measure_memory(model, adapter, work)


def test_figures_that_the_system_does_not_report_are_not_available(embedded_memory):
    missing = replace(embedded_memory, steady=None, cold_start_s=None)
    rows = dict(memory_table(missing, embedded()).rows)
    assert rows["cold start to first token (file not cached), s"] == rows["  KV cache, MB"] == "not available"
    assert rows["load (file cached), s"] == f"{embedded_memory.load_s:.2f}"


WORK = '{"prompt_tokens": 3, "decode_tokens": 1, "threads": 1}'


def test_the_command_prints_one_json_object(tiny, not_a_model, lora):
    def run(*arguments):
        command = [sys.executable, "-m", "thirteen.bench.memory.memory", WORK, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run(tiny, lora)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(json.loads(done.stdout)) == {field.name for field in fields(MemoryUse)}
    failed = run(not_a_model)
    assert failed.returncode == 2
    assert json.loads(failed.stdout)["error"] == "FileError"
    assert failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1
