"""Random headers: what the check accepts, llama.cpp loads without a signal, and both read the same."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from . import gguf_mutations
from .gguf_mutations import MutatedFile, RawFile, adapter_file, model_file, mutated_files

EXAMPLES = int(os.environ.get("THIRTEEN_GGUF_EXAMPLES", "400"))
FILES = [model_file("llama"), model_file("qwen2"), adapter_file()]


class NativeLoader:
    """The process that loads files; it is started again after a signal."""

    def __init__(self, base: Path) -> None:
        self._command = [sys.executable, str(Path(__file__).with_name("native_loader.py")), str(base)]
        self._process: subprocess.Popen[str] | None = None
        self.outcomes: Counter[str] = Counter()

    def __call__(self, path: Path) -> str:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        outcome = json.loads(line) if line else f"died: status {self.close()}"
        self.outcomes[outcome.split(":")[0]] += 1
        return str(outcome)

    @property
    def running(self) -> bool:
        return self._process is not None

    def close(self) -> int:
        assert self._process
        process, self._process = self._process, None
        process.communicate()
        return process.returncode


@pytest.fixture(scope="module")
def native_load(tiny: Path) -> Iterator[NativeLoader]:
    loader = NativeLoader(tiny)
    yield loader
    if loader.running:
        loader.close()
    print(f"\noutcomes: {dict(loader.outcomes)}")


@pytest.mark.parametrize("file", FILES, ids=["llama", "qwen2", "adapter"])
def test_the_files_that_are_mutated_run(file: RawFile, native_load: NativeLoader, tmp_path: Path) -> None:
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
    file: MutatedFile, native_load: NativeLoader, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    path.write_bytes(file.content)
    outcome = native_load(path)
    assert outcome == "ran" or outcome.startswith(("refused: ", "llama.cpp refused: ")), (
        f"{outcome}: {file.changes}"
    )
    assert "\n" not in outcome


def test_every_kind_of_outcome_was_seen(native_load: NativeLoader) -> None:
    """A campaign whose files are all refused, or all run, tests nothing."""
    assert {"ran", "refused"} <= native_load.outcomes.keys()
