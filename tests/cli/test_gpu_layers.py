"""--gpu-layers: refused in one line where it is wrong or there is no GPU, before a file is read."""

import pytest
import typer
from thirteen.cli import options
from thirteen.runtime.native.llama_cpp_library import gpu_found
from thirteen.runtime.plan import options as plan_options

LINES = ("ask missing.gguf 1+1?", "serve missing.gguf", "batch missing.jsonl missing.gguf")


@pytest.mark.parametrize("line", LINES)
def test_a_command_ends_before_it_reads_a_file(line, thirteen):
    """None of the files exists."""
    done = thirteen(*line.split(), "--gpu-layers=1.5")
    assert "--gpu-layers '1.5': must be an integer from 0, or all" in done.stderr
    if not gpu_found():
        done = thirteen(*line.split(), "--gpu-layers", "all")
        assert (done.status, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith("error: gpu_layers all: llama.cpp finds no GPU")
    if not line.startswith("ask"):
        done = thirteen(*line.split(), "--gpu-layers", "1", "--ray", "auto")
        assert done.status == 2 and "--gpu-layers and --ray exclude each other" in done.stderr


def test_numbers_and_all_are_parsed(monkeypatch):
    assert {options.engine_options("0", ray).gpu_layers for ray in (None, "auto")} == {0}
    monkeypatch.setattr(plan_options, "gpu_found", lambda: True)
    assert [options.engine_options(text).gpu_layers for text in ("30", "all")] == [30, "all"]
    for text in ("-1", "ALL", "", "four", "9" * 10, "٣"):
        with pytest.raises(typer.BadParameter):
            options.engine_options(text)
