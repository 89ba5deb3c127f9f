"""`thirteen bench MODEL`: an estimate, the verdict, and an early end where no answer has room."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from thirteen.bench import benchmark
from thirteen.bench.accuracy.accuracy_metrics import PairedScores
from thirteen.bench.benchmark import describe_accuracy, describe_speed, verdict
from thirteen.cli.main import app
from thirteen.stats.interval import Interval

from ..commands import Commands
from ..json_lines import write_rows
from ..runtime.conftest import tensors, write_gguf

pytestmark = pytest.mark.slow

END = 258


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, with short answers."""
    embedding = tensors()["token_embd.weight"]
    embedding[END] *= 4
    return write_gguf(tmp_path_factory.mktemp("bench") / "tiny.gguf", {}, {"token_embd.weight": embedding})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = ({"question": f"{n} + {n}?", "answer": 2 * n} for n in range(12))
    return write_rows(tmp_path_factory.mktemp("data") / "sums.jsonl", rows)


@pytest.fixture(scope="module")
def bench() -> Iterator[Commands]:
    with Commands() as thirteen:
        yield lambda *words: thirteen("bench", *words, "--threads", 1)


def test_with_an_adapter_both_parts_are_compared(bench, model, lora, data):
    done = bench(model, "--adapter", lora, "--data", data, "--max-tokens", 24, "--json")
    assert done.status == 0, done.stderr
    first, then = (line for line in done.stderr.splitlines() if " take " in line)
    assert first.startswith("the first 8 questions take at most ")
    assert then.startswith("latency and accuracy take about ")
    report = json.loads(done.stdout)
    assert report["speed"] is None and "accurate" in report["verdict"]
    assert report["latency"]["adapted"]["adapter"]["path"] == report["accuracy"]["adapted"]["adapter"]
    assert report["accuracy"]["paired"]["questions"] == 12


@pytest.mark.parametrize("adapted", [True, False])
def test_a_quick_one_says_speed_size_and_right_answers_in_three_sentences(adapted, bench, model, lora, data):
    """Without --data, of the sums that come with the package."""
    words = (model, *(("--adapter", lora) if adapted else ()), "--quick", "--max-tokens", 24)
    done = bench(*words)
    assert done.status == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert re.match(r"Speed: .* Size: .* MB.* Right answers: \d+ of \d+ questions of sums", told), told
    report = json.loads(bench(*words, "--data", data, "--json").stdout)
    assert len(report["summary"]) == 3 and report["latency"] is None
    assert report["accuracy"]["adapted"]["scores"]["questions"] == 12
    assert report["accuracy"]["answer_time"] is None


def test_what_was_finished_is_said_when_it_ends_early(model, lora, data, monkeypatch, capfd):
    """It printed nothing after 356 seconds."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "run_accuracy", interrupted)
    words = ["bench", model, "--adapter", lora, "--data", data, "--quick", "--threads", 1]
    monkeypatch.setattr(sys, "argv", ["thirteen", *map(str, words)])
    with pytest.raises(KeyboardInterrupt):
        app(words and [str(word) for word in words], standalone_mode=False)
    assert re.search(r"not finished; measured so far: Speed: .*tokens/s.* Size: ", capfd.readouterr().err)


def test_a_model_alone(bench, model, data):
    done = bench(model, "--data", data, "--max-tokens", 24, "--limit", 3)
    assert done.status == 0, done.stderr
    assert "\nfirst token after " in done.stdout and "accuracy, % (95 %)" in done.stdout


def test_it_ends_where_all_first_answers_are_cut_off(bench, model, data):
    done = bench(model, "--data", data, "--max-tokens", 1)
    *_, error = done.stderr.splitlines()
    assert (done.status, done.stdout) == (2, "")
    assert error.startswith(
        "error: all answers to the first 8 questions were cut off at 1 tokens: allow more, "
    )
    assert error.endswith("allow more, such as 2")


def paired(gained: int, lost: int, low: float, high: float, p_value: float) -> PairedScores:
    return PairedScores(
        100, 40, gained, lost, 60 - gained - lost, Interval(low, (gained - lost) / 100, high), p_value
    )


@pytest.mark.parametrize(
    ("ratio", "scores", "line"),
    [
        (
            (1.14, 1.16, 1.19),
            (5, 5, -0.064, 0.064, 1),
            "1.16 times slower (1.14 to 1.19), equally accurate so far (-6.4 to +6.4 points): "
            "about 60 more questions would settle it",
        ),
        (
            (0.9, 1, 1.1),
            (20, 2, 0.09, 0.27, 0.001),
            "equally fast so far (0.90 to 1.10 times), more accurate by 18.0 points (+9.0 to +27.0 points): "
            "about 24 more rounds would settle it",
        ),
        (
            (0.78, 0.8, 0.82),
            (0, 9, -0.15, -0.04, 0.004),
            "1.25 times faster (1.22 to 1.28), less accurate by 9.0 points (-15.0 to -4.0 points)",
        ),
        (
            (0.99, 1, 1.01),
            (1, 1, -0.04, 0.04, 1),
            "equally fast (0.99 to 1.01 times), equally accurate (-4.0 to +4.0 points)",
        ),
        ((1.06, 1.2, 1.9), (1, 1, -0.04, 0.04, 1), "1.20 times slower so far (1.06 to 1.90), equally"),
        ((1.001, 1.004, 1.006), (1, 1, -0.04, 0.04, 1), "1.0040 times slower (1.0010 to 1.0060), equally"),
    ],
)
def test_the_verdict_says_what_is_open(ratio, scores, line):
    found = verdict([describe_speed(Interval(*ratio), 8), describe_accuracy(paired(*scores))])
    assert found.startswith(line) and (line.endswith("equally") or found == line)
