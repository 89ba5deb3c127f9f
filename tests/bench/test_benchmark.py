"""`thirteen bench MODEL`: an estimate, the verdict, and an early end where no answer has room."""

import json
import re
from contextlib import suppress
from types import SimpleNamespace

import pytest
from thirteen.bench import benchmark
from thirteen.bench.accuracy.accuracy_metrics import PairedScores
from thirteen.bench.harness.interleave import PairedMeasurement
from thirteen.bench.speed.questions import QuestionSpeeds
from thirteen.bench.summary import accuracy_sentence, speed_sentence
from thirteen.cli.main import app
from thirteen.stats.interval import Interval

from ..commands import Commands
from ..json_lines import write_rows
from ..runtime.conftest import tensors, write_gguf

pytestmark = pytest.mark.slow

END = 258


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The tiny model, with short answers."""
    embedding = tensors()["token_embd.weight"]
    embedding[END] *= 4
    return write_gguf(tmp_path_factory.mktemp("bench") / "tiny.gguf", {}, {"token_embd.weight": embedding})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rows = ({"question": f"{n} + {n}?", "answer": 2 * n} for n in range(12))
    return write_rows(tmp_path_factory.mktemp("data") / "sums.jsonl", rows)


@pytest.fixture(scope="module")
def bench():
    with Commands() as thirteen:
        yield lambda *words: thirteen("bench", *words, "--threads", 1)


def test_with_an_adapter_both_parts_are_compared(bench, model, lora, data):
    done = bench(model, "--adapter", lora, "--data", data, "--max-tokens", 24, "--json")
    assert done.status == 0, done.stderr
    first, then = (line for line in done.stderr.splitlines() if " take " in line)
    assert first.startswith("the first 8 questions take at most ")
    assert then.startswith("latency and accuracy take about ")
    report = json.loads(done.stdout)
    assert report["speed"] is None and "Right answers: " in report["verdict"]
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
    assert report["verdict"].startswith("Speed: ") and report["latency"] is None
    assert report["accuracy"]["adapted"]["scores"]["questions"] == 12
    assert report["accuracy"]["answer_time"] is None


def test_a_quick_one_ends_in_time_and_says_so(model, lora, monkeypatch, capfd):
    """Beside a busy process its number of rounds and questions took it past its minute."""
    monkeypatch.setattr(benchmark, "_QUICK_S", dict.fromkeys((True, False), 0))
    words = ["bench", model, "--adapter", lora, "--quick", "--max-tokens", 24, "--threads", 1]
    app([str(word) for word in words], standalone_mode=False)
    told = " ".join(capfd.readouterr().out.split())
    assert "(3 rounds, 75 % sure)" in told
    assert re.search(r"Right answers: \d of 1 questions of sums \(no time for all 48\), the base \d: ", told)


def test_what_was_finished_is_said_when_it_ends_early(model, lora, data, monkeypatch, capfd):
    """It printed nothing after 356 seconds."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "run_accuracy", interrupted)
    words = ["bench", model, "--adapter", lora, "--data", data, "--quick", "--threads", 1]
    with suppress(KeyboardInterrupt):  # some versions of typer return a status
        app([str(word) for word in words], standalone_mode=False)
    assert re.search(r"not finished; measured so far: Speed: .*tokens/s.* Size: ", capfd.readouterr().err)


def test_a_model_alone(bench, model, data):
    done = bench(model, "--data", data, "--max-tokens", 24, "--limit", 3)
    assert done.status == 0, done.stderr
    assert done.stdout.startswith("Speed: the model writes ") and "accuracy, % (95 %)" in done.stdout


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
    ("ratio", "sentence"),
    [
        (
            (0.84, 0.86, 0.88),
            "Speed: the adapted model writes 86 tokens/s, its base 100: 14 % slower (12 to 16 %).",
        ),
        (
            (1.02, 1.03, 1.05),
            "Speed: the adapted model writes 103 tokens/s, its base 100: 3 % faster (2 to 5 %).",
        ),
        ((0.98, 1, 1.01), "Speed: no difference within 2 %: both write about 100 tokens/s."),
        (
            (0.9, 1, 1.1),
            "Speed: no difference within 10 %: both write about 100 tokens/s; "
            "about 24 more rounds would settle it.",
        ),
    ],
)
def test_the_speed_in_a_sentence(ratio, sentence):
    decode = PairedMeasurement("tokens/s", (), (), 100, 100 * ratio[1], Interval(*ratio))
    speeds = QuestionSpeeds(32, decode, decode, decode, 16, decode)
    assert speed_sentence(speeds, 8) == sentence


@pytest.mark.parametrize(
    ("scores", "end"),
    [
        (
            (5, 5, -0.064, 0.064, 1),
            "45 of 100 questions of sums, the base 45: no difference within 6 points; "
            "about 60 more questions would settle it.",
        ),
        ((20, 2, 0.09, 0.27, 0.001), "60 of 100 questions of sums, the base 42: 18 points more (9 to 27)."),
        ((0, 9, -0.15, -0.04, 0.004), "40 of 100 questions of sums, the base 49: 9 points fewer (4 to 15)."),
        ((1, 1, -0.04, 0.04, 1), "41 of 100 questions of sums, the base 41: no difference within 4 points."),
    ],
)
def test_the_right_answers_in_a_sentence(scores, end):
    report = SimpleNamespace(
        data="sums", base=True, paired=paired(*scores), adapted=SimpleNamespace(scores=None)
    )
    assert accuracy_sentence(report) == f"Right answers: {end}"
