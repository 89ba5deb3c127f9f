"""--gpu-layers of ask, serve and batch: refused in one line where it is wrong or there is no GPU."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from thirteen.cli import options
from thirteen.runtime.llama import gpu

from ..commands import Commands

COMMANDS = {
    "ask": ("ask", "MODEL", "1 + 1?"),
    "serve": ("serve", "MODEL", "--port", "0"),
    "batch": ("batch", "questions.jsonl", "MODEL", "--out", "OUT"),
}


@pytest.fixture(scope="module")
def run() -> Iterator[Commands]:
    with Commands() as commands:
        yield commands


@pytest.mark.skipif(gpu.gpu_found(), reason="there is a GPU")
@pytest.mark.parametrize("layers", ["4", "all"])
@pytest.mark.parametrize("name", COMMANDS)
def test_without_a_gpu_a_command_ends_before_it_reads_a_file(
    name: str, layers: str, run: Commands, tmp_path: Path
) -> None:
    """None of the files exists."""
    paths = {"MODEL": tmp_path / "missing.gguf", "OUT": tmp_path / "answers.jsonl"}
    done = run(*(paths.get(word, word) for word in COMMANDS[name]), "--gpu-layers", layers)
    assert done.status == 2 and not done.stdout
    assert done.stderr.startswith(f"error: gpu_layers {layers}: llama.cpp finds no GPU")
    assert "-DGGML_VULKAN=on" in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layers", ["-1", "1.5", "ALL", "", "four", "9" * 10, "٣"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_bad_number_is_refused(name: str, layers: str, run: Commands) -> None:
    done = run(*COMMANDS[name], f"--gpu-layers={layers}")
    assert done.status == 2 and not done.stdout
    assert f"--gpu-layers {layers!r}: must be an integer from 0, or all" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["serve", "batch"])
def test_a_cluster_has_no_gpu_layers(name: str, run: Commands) -> None:
    done = run(*COMMANDS[name], "--gpu-layers", "1", "--ray")
    assert done.status == 2 and "--gpu-layers and --ray exclude each other" in done.stderr


def test_numbers_and_all_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert options.gpu_layers("0") == options.gpu_layers("0", ray="auto") == 0
    monkeypatch.setattr(gpu, "gpu_found", lambda: True)
    assert (options.gpu_layers("30"), options.gpu_layers("all")) == (30, "all")
    with pytest.raises(typer.BadParameter):
        options.gpu_layers("30", ray="auto")
