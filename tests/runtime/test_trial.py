"""Trials of foreign files: what fails or dies in the other process is one line, and a pass is remembered."""

import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import sleep
from typing import Any

import gguf
import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from thirteen.errors import FileError
from thirteen.files.gguf.header import read_header
from thirteen.files.trusted_files import trust_file
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.trial import try_files

from ..commands import CommandResult, Commands
from ..fuzz.gguf_mutations import RawFile, adapter_file, model_file, mutated_files
from ..fuzz.target import corpus
from .conftest import write_file, write_gguf
from .fakes import FIXED
from .gguf_adapters import MATRICES, write_factors, write_lora
from .tiny_decoders import TOKENS, write_decoder

KINDS = gguf.GGUFValueType
INTEGERS = {"blk.0.attn_q.weight": np.ones((64, 64), np.int8)}  # of which there is no product
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLING = "{% set n = namespace(a=[0]) %}{% for b in range(50) %}{% set n.a = n.a + n.a %}{% endfor %}"

Trial = Callable[..., CommandResult]


@pytest.fixture(scope="module")
def trial():
    """trial(model, *adapters): run the other process, forked from one that has imported everything."""
    with Commands("thirteen.runtime.trial") as run:
        yield lambda *files: run(20, 3_000_000_000, "llama.cpp", *files)


def template(source):
    return {"tokenizer.chat_template": source}


# Changed keys, changed tensors, and a pattern in the last line.
HOSTILE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no layers": ({"llama.block_count": 0}, {}, "ASSERT.*n_layer_all > 0"),
    "a layer more": ({"llama.block_count": 3}, {}, r"blk\.2\.attn_norm.weight' not found"),
    "negative epsilon": ({"llama.attention.layer_norm_rms_epsilon": -1.0}, {}, "ASSERT.*eps"),
    "a long value": ({"tokenizer.ggml.pre": "x" * 100_000}, {}, "unknown pre-tokenizer type: 'x{400,450}"),
    "no bytes": ({"tokenizer.ggml.model": "llama"}, {}, "unordered_map::at"),
    "an adapter": ({"general.type": "adapter"}, {}, "is an adapter, not a model"),
    "a part": ({"split.count": (2, KINDS.UINT16, None)}, {}, "one part of 2; merge the parts first"),
    "a template that is broken": (template("{%"), {}, "template cannot be compiled"),
    "a template that fails": (template("{{ 1 / 0 }}"), {}, "template failed: ZeroDivisionError"),
    "a template that fills the memory": (template(DOUBLING), {}, "template failed: MemoryError"),
    "a matrix of integers": ({}, INTEGERS, "computing$"),  # SIGSEGV
}


@pytest.mark.parametrize(("keys", "arrays", "pattern"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_model_fails_or_dies_in_the_trial(keys, arrays, pattern, trial, tmp_path):
    done = trial(write_gguf(tmp_path / "a.gguf", keys, arrays))
    assert done.status < 0 or done.status == 2, done.stderr
    assert re.search(pattern, done.stderr.rstrip().splitlines()[-1])


def factors(name=MATRICES[0], rows=64, columns=64):
    return {name: (np.ones((2, columns)), np.ones((rows, 2)))}


def test_an_adapter_that_does_not_fit_is_refused(trial, tiny, tmp_path):
    for changed, architecture, pattern in (
        (factors(columns=32), "llama", "attn_q.weight' has incorrect shape"),
        (factors("blk.9.attn_q.weight"), "llama", "does not exist in base model"),
        (factors("output_norm.weight", 1), "llama", "which cannot be adapted at run time"),
        (factors(), "qwen2", "model arch and LoRA arch mismatch"),
    ):
        lora = write_factors(tmp_path / "lora.gguf", changed, architecture)
        done = trial(tiny, lora)
        assert done.status == 2 and re.search(f"^{lora}: .*{pattern}", done.stderr.splitlines()[-1]), done


@pytest.mark.parametrize("name", TOKENS)
def test_a_model_of_each_tokenizer_passes(name, trial, tmp_path):
    assert trial(write_decoder(tmp_path / "a.gguf", "gemma", name)).status == 0


@pytest.fixture
def model(tiny, tmp_path, records):
    """A copy of the tiny model, which no record stands for."""
    (path := tmp_path / "model.gguf").write_bytes(tiny.read_bytes())
    return path


@pytest.fixture
def bad_lora(tmp_path):
    """An adapter whose load ends the process: its alpha is an integer."""
    values = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 2}
    return write_file(tmp_path / "bad.gguf", "llama", values, {})


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_what_ends_the_process_is_one_line_that_names_the_file(model, bad_lora, tmp_path):
    """Wherever a file is first used."""
    abort = r"bad\.gguf: loading in llama\.cpp ended with SIGABRT: gguf\.cpp:\d+: GGML_ASSERT\(.*\) failed$"
    with pytest.raises(FileError, match=abort):
        try_files(model, [write_lora(tmp_path / "good.gguf", 2), bad_lora])
    with pytest.raises(FileError, match=abort):
        Engine(model, adapter=bad_lora, **FIXED, context=64)
    write_gguf(model, HOSTILE["negative epsilon"][0], {})
    with pytest.raises(FileError, match=r"SIGABRT: ggml\.c:\d+: GGML_ASSERT\(.*\) failed$"):
        try_files(model, library="ik")


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="signals and limits of Linux")
def test_a_template_that_never_ends_is_stopped_and_a_long_trial_says_so(model, caplog):
    write_gguf(model, template(LOOP), {})
    rendering = r"model\.gguf: rendering its chat template "
    with pytest.raises(FileError, match=rendering + "(ended with SIGXCPU|takes more than 3 seconds)$"):
        try_files(model, seconds=1)
    caplog.clear()
    with ThreadPoolExecutor(1) as thread:
        tried = thread.submit(try_files, model)
        while not caplog.records:
            sleep(0.05)
        next(one for one in psutil.Process().children() if "-m" in one.cmdline()).kill()
        with pytest.raises(FileError, match=rendering + "ended with SIGKILL$"):
            tried.result()
    assert caplog.messages == ["trying model.gguf once in a separate process …"]
    assert caplog.records[0].levelno == logging.WARNING


def is_tried(*files, **options):
    """Whether files are tried: a trial that has no time at all fails."""
    try:
        try_files(files[0], files[1:], seconds=0, **options)
    except FileError as error:
        assert "takes more than 0 seconds" in str(error)
        return True
    return False


def test_what_has_passed_is_remembered_until_it_changes(model, tmp_path):
    lora, other = (write_lora(tmp_path / f"{seed}.gguf", seed) for seed in range(2))
    assert is_tried(model)
    try_files(model, [lora])
    assert not is_tried(model, lora) and is_tried(model, other)
    assert is_tried(model, untrusted=True) and is_tried(model, library="ik")
    state = model.stat()
    model.write_bytes(model.read_bytes())  # the time is put back: whoever can write the file can do so
    os.utime(model, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert is_tried(model) and is_tried(model, lora)


def test_own_files_are_not_tried_and_the_environment_decides(model, smollm2, monkeypatch):
    trust_file(model)
    assert not is_tried(model) and not is_tried(smollm2)
    monkeypatch.setenv("THIRTEEN_UNTRUSTED", "always")
    assert is_tried(model) and not is_tried(model, untrusted=False)
    write_gguf(model, {"llama.rope.dimension_count": 8}, {})
    monkeypatch.setenv("THIRTEEN_UNTRUSTED", "never")
    assert not is_tried(model)


def test_a_process_that_fails_tells_how_to_go_on(model, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    message = r"model\.gguf: a trial failed with exit status 1.*THIRTEEN_UNTRUSTED=never turns"
    with pytest.raises(FileError, match=message):
        try_files(model)


def check_ends_nothing(path, base, trial, ask):
    """What became of a file; what has passed its trial must run in an engine."""
    try:
        is_adapter = "adapter.type" in read_header(path).fields
    except FileError:
        return "header"
    if status := trial(*([base, path] if is_adapter else [path])).status:
        return "refused" if status == 2 else "died"
    words = [base, "1 + 1? é", "--adapter", path] if is_adapter else [path, "1 + 1? é"]
    done = ask("ask", *words, "--max-tokens", 4, "--threads", 1)
    error = done.stderr.splitlines()[-1].startswith("error: ")
    assert done.status == 0 or (done.status == 2 and error), done.stderr
    return "passed"


@pytest.mark.exhaustive
def test_no_file_of_the_fuzzer_ends_an_engine(trial, tiny, tmp_path):
    """Neither those of the corpus nor models and adapters with random changes."""
    count = int(os.environ.get("THIRTEEN_GGUF_EXAMPLES", "400"))
    path, outcomes = tmp_path / "a.gguf", Counter[str]()
    files = [model_file(), adapter_file()]
    for name, kind in (("gemma3", "llama"), ("qwen3moe", "gpt2"), ("mamba", "rwkv"), ("gemma", "t5")):
        files.append(RawFile.decode(write_decoder(path, name, kind).read_bytes()))
    with Commands() as ask:

        @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck))
        @given(mutated_files(files))
        def check(content):
            path.write_bytes(content)
            outcomes[check_ends_nothing(path, tiny, trial, ask)] += 1

        check()
        for found in (*corpus("gguf_headers"), *corpus("native_files")):
            check_ends_nothing(found, tiny, trial, ask)
    print(f"\noutcomes: {dict(outcomes)}")
    assert set(outcomes) == {"header", "refused", "died", "passed"}
