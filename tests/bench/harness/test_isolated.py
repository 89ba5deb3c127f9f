"""Work in a process of its own: what it says, raises or dies of comes back. The modules are real ones."""

import pytest
from thirteen.bench.harness.isolated import run_isolated
from thirteen.errors import ModelFileError, OutputError


def died(status: int, said: str) -> OutputError:
    return OutputError(f"it died with {status}: {said}")


def test_what_a_module_raises_is_raised_here_as_the_same_kind(not_a_model):
    with pytest.raises(ModelFileError, match=r"no\.gguf: not a GGUF file"):
        run_isolated("thirteen.bench.memory.memory", ["--", str(not_a_model)], died)


def test_a_process_that_ends_without_an_answer_is_the_callers_error_with_its_last_words():
    with pytest.raises(OutputError, match=r"it died with 2: .*arguments are required: FILE\.gguf"):
        run_isolated("thirteen.bench.memory.memory", [], died)
    with pytest.raises(OutputError, match=r"it died with 1: .*No module named thirteen\.bench\.nothing"):
        run_isolated("thirteen.bench.nothing", [], died)


def test_a_process_that_says_nothing_at_all_is_an_error_too():
    with pytest.raises(OutputError, match="it died with 0: it said nothing"):
        run_isolated("thirteen.stats.paired_ratio", [], died)
