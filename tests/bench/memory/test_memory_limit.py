"""Models under real limits of address space."""

import subprocess
import sys

import pytest
from thirteen.bench.memory import memory_limit
from thirteen.bench.memory.memory_limit import run_memory_limit
from thirteen.bench.memory.memory_limit_worker import QUESTIONS, LimitOutcome, LimitSettings
from thirteen.errors import ModelFileError, NoRoomError, RequestError
from thirteen.models.fetch import embedded

SMALL = LimitSettings(context=256, threads=2)
CAP = 400_000_000


@pytest.fixture(scope="module")
def report():
    return run_memory_limit(embedded(), CAP, SMALL)


def test_a_model_answers_within_a_cap_and_the_smallest_is_found(report):
    assert report.refusal is None
    done = report.answered
    assert (done.answers, done.context, done.filled) == (len(QUESTIONS), 256, True)
    assert done.peak_rss_bytes < done.peak_address_bytes <= report.smallest_bytes < CAP
    assert run_memory_limit(embedded(), report.smallest_bytes - 10_000_000, SMALL).answered is None


def test_the_estimate_is_within_a_twentieth_of_what_is_resident(report):
    assert abs(report.error) < 0.05, report


@pytest.mark.parametrize("size", [60_000_000, 200_000_000, 250_000_000])
def test_a_cap_that_is_too_small_is_refused_before_loading(size):
    """Never a process that dies: not where the file alone is too large, and not where the rest is."""
    refused = run_memory_limit(embedded(), size, SMALL)
    assert refused.answered is None
    assert "SmolLM2" in refused.refusal
    assert "memory" in refused.refusal


def test_bad_input_is_an_error(not_a_model):
    with pytest.raises(ModelFileError, match=r"no\.gguf"):
        run_memory_limit(not_a_model, 600_000_000, SMALL)
    with pytest.raises(RequestError, match="tablet"):
        run_memory_limit(embedded(), 600_000_000, LimitSettings(profile="tablet"))


@pytest.mark.parametrize("size", ["1", "much", "3bpw", "-1GB"])
def test_a_cap_without_a_unit_is_refused(size):
    command = [sys.executable, "-m", "thirteen", "bench", "memory", str(embedded()), f"--cap={size}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "--cap" in done.stderr


def test_a_cap_that_is_refused_the_second_time_is_raised(tiny, monkeypatch):
    """A process' own address space is not the same to the page from run to run."""
    asked = []

    def under(model, cap, trial, *, fill):
        asked.append((cap, fill))
        if cap < 50_000_000 or (fill and sum(again for _, again in asked) < 3):
            raise NoRoomError("too little")
        return LimitOutcome(trial.context, 4, fill, 40_000_000, cap)

    monkeypatch.setattr(memory_limit, "answer_under_limit", under)
    report = run_memory_limit(tiny, CAP, SMALL)
    filled = [size for size, fill in asked if fill]
    assert len(filled) == 3
    assert filled == sorted(filled)
    assert report.smallest_bytes == filled[-1]
    assert report.answered.filled
