"""Models under real address space limits."""

import subprocess
import sys

import pytest
from thirteen.bench.memory import memory_limit
from thirteen.bench.memory.memory_limit import run_memory_limit
from thirteen.bench.memory.memory_limit_worker import QUESTIONS, LimitOutcome, LimitSettings
from thirteen.errors import InsufficientMemoryError, ModelFileError, RequestError
from thirteen.models.fetch import embedded

pytestmark = pytest.mark.slow

SMALL = LimitSettings(context=256, threads=2)
LIMIT = 400_000_000


@pytest.fixture(scope="module")
def report():
    return run_memory_limit(embedded(), LIMIT, SMALL)


def test_the_smallest_limit_works_and_a_smaller_one_is_refused(report):
    assert report.refusal is None
    outcome = report.answered
    assert (outcome.answers, outcome.context, outcome.filled) == (len(QUESTIONS), 256, True)
    assert outcome.peak_rss_bytes < outcome.peak_address_bytes <= report.smallest_bytes < LIMIT
    assert run_memory_limit(embedded(), report.smallest_bytes - 10_000_000, SMALL).answered is None


def test_the_estimate_is_within_5_percent_of_peak_rss(report):
    assert abs(report.error) < 0.05, report


@pytest.mark.parametrize("size", [60_000_000, 200_000_000, 250_000_000])
def test_a_limit_that_is_too_small_is_refused_before_loading(size):
    """The process never dies, whether the file alone exceeds the limit or only the file with the rest."""
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
def test_a_limit_without_a_unit_is_refused(size):
    command = [sys.executable, "-m", "thirteen", "bench", "memory", str(embedded()), f"--cap={size}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "--cap" in done.stderr


def test_a_limit_that_is_refused_when_repeated_is_raised(tiny, monkeypatch):
    """The address space of a process varies by a few pages from run to run."""
    runs = []

    def run(model, limit, settings, *, fill):
        runs.append((limit, fill))
        if limit < 50_000_000 or (fill and sum(fill for _, fill in runs) < 3):
            raise InsufficientMemoryError("too little")
        return LimitOutcome(settings.context, 4, fill, 40_000_000, limit)

    monkeypatch.setattr(memory_limit, "run_under_limit", run)
    report = run_memory_limit(tiny, LIMIT, SMALL)
    filled = [limit for limit, fill in runs if fill]
    assert len(filled) == 3
    assert filled == sorted(filled)
    assert report.smallest_bytes == filled[-1]
    assert report.answered.filled
