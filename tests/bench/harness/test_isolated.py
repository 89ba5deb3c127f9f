"""Modules run in separate processes: results, errors and crashes reach the caller."""

import pytest
from thirteen.bench.harness.isolated import module_process, run_in_subprocess
from thirteen.errors import FileError, OutputError


def crash_error(status: int, last_line: str) -> OutputError:
    return OutputError(f"it ended with {status}: {last_line}")


def test_an_error_of_the_module_is_raised_with_its_class(not_a_model):
    with pytest.raises(FileError, match=r"no\.gguf: not a GGUF file"):
        run_in_subprocess("thirteen.bench.memory.memory", ["{}", str(not_a_model)], crash_error)


def test_a_crash_is_the_callers_error_with_the_last_line_of_stderr():
    with pytest.raises(OutputError, match=r"it ended with 1: .*missing 2 required positional"):
        run_in_subprocess("thirteen.bench.memory.memory", [], crash_error)
    with pytest.raises(OutputError, match=r"it ended with 1: .*No module named thirteen\.bench\.nothing"):
        run_in_subprocess("thirteen.bench.nothing", [], crash_error)


def test_a_process_without_output_is_a_crash():
    with pytest.raises(OutputError, match="it ended with 0: no output"):
        run_in_subprocess("thirteen.stats.paired_ratio", [], crash_error)


def test_a_measured_process_loads_nothing_on_trial(monkeypatch):
    """It would count as time and memory of the model."""
    monkeypatch.setenv("THIRTEEN_UNTRUSTED", "always")
    _, environment = module_process("thirteen.bench.memory.memory", [])
    assert environment["THIRTEEN_UNTRUSTED"] == "never"
