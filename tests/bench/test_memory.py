"""Memory and load time in a process of its own, with real files."""

import json
import subprocess
import sys

import pytest
from thirteen.bench.memory import measure
from thirteen.bench.settings import Settings
from thirteen.errors import AdapterError, ModelFileError, RequestError
from thirteen.models.fetch import embedded

SMALL = Settings(prompt_tokens=4, decode_tokens=1, threads=1)


def test_what_the_embedded_model_takes_is_about_its_file_and_its_buffers():
    path = embedded()
    file_bytes = path.stat().st_size
    memory = measure(path, None, SMALL)
    assert memory.load_s > 0
    grown = memory.peak_rss_bytes - memory.start_rss_bytes
    # Every weight was touched; some are there twice, mapped and laid out anew.
    assert 0.9 * file_bytes < grown < 3 * file_bytes + 500e6


def test_another_models_memory_in_the_caller_does_not_count(tiny):
    """A child's peak by getrusage began with its parent's, and a tiny model seemed to take gigabytes."""
    ballast = bytearray(b"x") * 1_000_000_000
    assert measure(tiny, None, SMALL).peak_rss_bytes < len(ballast) / 2


def test_a_file_that_is_not_a_model_is_the_same_error_as_in_this_process(not_a_model):
    with pytest.raises(ModelFileError, match=r"no\.gguf"):
        measure(not_a_model, None, SMALL)


def test_a_missing_file_is_a_model_file_error(tmp_path):
    with pytest.raises(ModelFileError, match=r"absent\.gguf"):
        measure(tmp_path / "absent.gguf", None, SMALL)


def test_a_model_is_not_an_adapter(tiny):
    with pytest.raises(AdapterError):
        measure(tiny, tiny, SMALL)


def test_a_turn_that_does_not_fit_the_model_is_refused(tiny):
    with pytest.raises(RequestError, match="300 prompt and 1 decode"):
        measure(tiny, None, Settings(prompt_tokens=300, decode_tokens=1, threads=1))


def test_the_command_prints_one_json_object(tiny, not_a_model, lora):
    def said(*arguments):
        command = [sys.executable, "-m", "thirteen.bench.memory", "--threads=1", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = said("--prompt-tokens=3", "--decode-tokens=1", f"--adapter={lora}", tiny)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(json.loads(done.stdout)) == {"load_s", "start_rss_bytes", "peak_rss_bytes"}
    failed = said(not_a_model)
    assert failed.returncode == 2
    assert json.loads(failed.stdout)["error"] == "ModelFileError"
    assert failed.stderr.startswith("error: ") and failed.stderr.count("\n") == 1
