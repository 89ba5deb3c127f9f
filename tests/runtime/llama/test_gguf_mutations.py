"""Random headers: what the check accepts, llama.cpp loads without a signal, and both read the same."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from . import gguf_mutations
from .gguf_mutations import RawFile, adapter_file, model_file, mutated_files
from .loader_process import LoaderProcess, is_survived

pytestmark = pytest.mark.exhaustive  # the fuzzer runs the same files

EXAMPLES = int(os.environ.get("THIRTEEN_GGUF_EXAMPLES", "400"))
FILES = [model_file("llama"), model_file("qwen2"), adapter_file()]


@pytest.fixture(scope="module")
def native_load(tiny: Path) -> Iterator[LoaderProcess]:
    loader = LoaderProcess(tiny)
    yield loader
    loader.close()
    print(f"\noutcomes: {dict(loader.outcomes)}")


@pytest.mark.parametrize("file", FILES, ids=["llama", "qwen2", "adapter"])
def test_the_files_that_are_mutated_run(file: RawFile, native_load: LoaderProcess, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(file.encode())
    assert native_load(path) == "ran"


def test_the_keys_of_llama_cpp_are_mutated() -> None:
    """The list is read from the library: an empty one would leave the campaign without its best inputs."""
    expected = {b"llama.expert_count", b"llama.rope.scaling.type", b"split.count", b"tokenizer.ggml.scores"}
    assert expected <= set(gguf_mutations.KEYS)
    assert len(gguf_mutations.KEYS) > 200


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(file=mutated_files(FILES))
def test_what_passes_the_check_loads_without_a_signal(
    file: bytes, native_load: LoaderProcess, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    path.write_bytes(file)
    outcome = native_load(path)
    assert is_survived(outcome), outcome


def test_every_kind_of_outcome_was_seen(native_load: LoaderProcess) -> None:
    """A campaign whose files are all refused, or all run, tests nothing."""
    assert {"ran", "refused"} <= native_load.outcomes.keys()
