"""Runs with real engines: resumption gives the same log; grading, scores, pairs and the report."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from thirteen.bench.accuracy import accuracy as accuracy_module
from thirteen.bench.accuracy.accuracy import AccuracyRequest, accuracy_table, run_accuracy
from thirteen.bench.accuracy.accuracy_metrics import pair_scores, score
from thirteen.bench.accuracy.answer_time import TimedAnswer
from thirteen.bench.accuracy.datasets import load_question_set
from thirteen.bench.accuracy.eval_log import Outcome, QuestionRecord, Sample
from thirteen.bench.accuracy.evaluate import RunConfig, grade
from thirteen.bench.accuracy.prompts import PROMPTS, PromptSettings
from thirteen.errors import FileError, RequestError
from thirteen.runtime.answer import Answer, VoteTally
from thirteen.runtime.arithmetic.final_answer import final_answer, format_number
from thirteen.runtime.batch.reproducible_batches import BatchJob, BatchResult
from thirteen.runtime.effort import Effort
from thirteen.runtime.plan import measurement, plan
from thirteen.runtime.plan.tuning import Tuning
from thirteen.runtime.request import Sampling, StopReason, Timings, Usage
from thirteen.stats.proportions import paired_difference

from ...interruption import Interrupted, stop_at
from ...json_lines import write_rows
from ...runtime.conftest import write_gguf

pytestmark = pytest.mark.slow

FEW = PromptSettings(threads=1, max_tokens=12)
QUESTIONS = [f"What is {n} + {n}? Tom has {n} apples." for n in range(50)]


@pytest.fixture(autouse=True)
def usual_settings(monkeypatch):
    """The default speed settings, saved: a measurement beside other tests chooses now these, now others."""

    def defaults(candidates, _):
        usual = candidates.ways[0]
        return Tuning(usual, (), quiet=True)

    monkeypatch.setattr(measurement, "measure_settings", defaults)


@pytest.fixture
def data(tmp_path):
    rows = ({"question": text, "answer": n} for n, text in enumerate(QUESTIONS))
    return load_question_set(str(write_rows(tmp_path / "sums.jsonl", rows)))


def evaluate(model, questions, settings, executor=BatchJob.run, progress=lambda *_: None, timed=0, **others):
    request = AccuracyRequest(model=model, questions=questions, settings=settings, timed=timed, **others)
    return run_accuracy(request, executor, progress)


def lines(report):
    """Lines of the log, in the order of the questions."""
    header, *records = Path(report.adapted.records).read_text("utf-8").splitlines()
    return [header, *sorted(records, key=lambda line: json.loads(line)["number"])]


@pytest.mark.parametrize("settings", [FEW, replace(FEW, effort=Effort.MEDIUM)], ids=["greedy", "votes"])
def test_an_interrupted_run_has_the_same_log(tiny, data, tmp_path, settings):
    whole = evaluate(tiny, data, settings, records=tmp_path / "whole")
    for count in (7, 45):
        with pytest.raises(Interrupted):
            evaluate(tiny, data, settings, records=tmp_path / "parts", progress=stop_at(count))
    parts = evaluate(tiny, data, settings, records=tmp_path / "parts")
    assert lines(parts) == lines(whole)
    assert len(lines(whole)) == 1 + len(QUESTIONS)
    assert len({line.partition("samples")[2] for line in lines(whole)[1:]}) > 25  # the answers do differ


def test_logged_questions_are_not_repeated(tiny, data, tmp_path, monkeypatch):
    first = evaluate(tiny, data, FEW, records=tmp_path)
    monkeypatch.setattr("thirteen.runtime.batch.reproducible_batches.Engine", None)  # cannot be loaded
    ticks = []
    again = evaluate(tiny, data, FEW, records=tmp_path, progress=lambda *tick: ticks.append(tick))
    assert (again.adapted, again.verdict) == (first.adapted, first.verdict)
    assert [tick[1:] for tick in ticks] == [(50, 50)]


def test_every_configuration_has_its_own_log(tiny, lora, data, tmp_path):
    name = ("another model", gguf.GGUFValueType.STRING, None)
    other = write_gguf(tmp_path / "other.gguf", {"general.name": name}, {})
    configs = [
        RunConfig(tiny, None, data, FEW, tmp_path),
        RunConfig(other, None, data, FEW, tmp_path),
        RunConfig(tiny, lora, data, FEW, tmp_path),
        RunConfig(tiny, None, data.subsample(3), FEW, tmp_path),
        *(
            RunConfig(tiny, None, data, replace(FEW, **change), tmp_path)
            for change in (
                {"prompt": "refined"},
                {"effort": Effort.HIGH},
                {"calculator": False},
                {"max_tokens": 13},
                {"threads": 2},
                {"sampling": Sampling(seed=1)},
            )
        ),
    ]
    assert len({config.log for config in configs}) == len(configs)


def test_the_name_of_a_log_fits_the_file_system(tiny, data, tmp_path):
    """Long names of model and questions ended in `File name too long`; others stay, to be resumed."""
    model = Path(shutil.copy(tiny, tmp_path / f"{'é' * 100}.gguf"))
    assert RunConfig(model, None, data, FEW, tmp_path).log.name.startswith(f"{'é' * 100}-sums-zero-shot-")
    long = replace(data.subsample(1), name="ü" * 120)
    report = evaluate(model, long, FEW, records=tmp_path)
    name = Path(report.adapted.records).name
    assert (
        len(os.fsencode(name)) in (254, 255)
        and name.startswith(f"{'é' * 100}-ü")
        and (tmp_path / name).exists()
    )


def test_one_side_is_named(tiny, lora, data, tmp_path):
    """With an adapter and no base, the table had one column named "model", and nothing told which it was."""
    labels = set()
    settings = {
        "records": tmp_path,
        "progress": lambda label, done, total: labels.add(label.partition(":")[0]),
    }
    report = evaluate(tiny, data.subsample(3), FEW, adapter=lora, **settings)
    assert labels == {"model with adapter"}
    only = f"only the model with the adapter was measured; give {tiny} as the base to measure it without"
    assert report.verdict[0] == only
    assert accuracy_table(report).header == ("", "model with adapter")
    plain = evaluate(tiny, data.subsample(3), FEW, **settings)
    assert accuracy_table(plain).header == ("", "model")
    assert not any("only" in line for line in plain.verdict)


def test_a_file_with_an_adapter_is_compared_with_the_same_file_without(tiny, lora, data, tmp_path):
    report = evaluate(tiny, data.subsample(9), FEW, base=tiny, adapter=lora, records=tmp_path)
    assert (report.base.adapter, report.adapted.adapter) == (None, str(lora))
    assert report.base.sha256 == report.adapted.sha256
    assert report.paired.questions == 9
    assert report.verdict[0].startswith("accuracy: ") and " lost of 9, p = " in report.verdict[0]
    names = {row[0] for row in accuracy_table(report).rows}
    assert {"accuracy, % (95 %)", "truncated", "errors", "McNemar's exact p", "tokens per answer"} <= names


@pytest.fixture
def rightish(tiny, tmp_path):
    """Questions of which the tiny model has some right: their answers are its own."""
    asked = [f"Tom has {n} apples and {n} pears. How many?" for n in range(12)]
    with BatchJob(tiny, None, FEW, 1).load_engine() as engine:
        values = [engine.submit(FEW.request(engine, text)).answer().value or "7" for text in asked]
    rows = ({"question": text, "answer": value} for text, value in zip(asked, values, strict=True))
    return load_question_set(str(write_rows(tmp_path / "own.jsonl", rows)))


def test_the_time_to_a_right_answer_is_measured(tiny, lora, rightish, tmp_path):
    """The records hold no times, so they stay the same bytes."""
    settings = {"base": tiny, "adapter": lora, "records": tmp_path / "records"}
    plain = evaluate(tiny, rightish, FEW, **settings)
    records = {path: path.read_bytes() for path in (tmp_path / "records").iterdir()}
    assert plain.answer_time is None and len(records) == 2
    timed = evaluate(tiny, rightish, FEW, timed=4, **settings)
    assert all(path.read_bytes() == content for path, content in records.items())
    times = timed.answer_time
    assert (times.timed, times.questions) == (4, 12)
    assert times.base.tokens == timed.base.scores.tokens
    assert times.base.prefill_s > 0 and times.seconds_ratio.low <= times.seconds_ratio.high
    assert timed.verdict[0].startswith("right answers a minute: ") and timed.verdict[2:] == plain.verdict
    assert timed.verdict[1] == "warning: 4 timed questions are too few for the interval of their ratios"
    assert {"seconds a question", "right answers a minute"} < {row[0] for row in accuracy_table(timed).rows}


def test_a_vote_is_timed_by_the_tokens_of_its_records(tiny, rightish, tmp_path, monkeypatch):
    """Alone it ends with fewer tokens than in a batch, so its seconds were too many."""
    monkeypatch.setattr(
        accuracy_module, "time_answers", lambda _, texts, *__: [[TimedAnswer(0.5, 2.0, 1)] * len(texts)]
    )
    voting = replace(FEW, effort=Effort.MEDIUM)
    times = evaluate(tiny, rightish, voting, timed=12, records=tmp_path).answer_time
    assert times.adapted.seconds == pytest.approx(2.5)


def test_a_question_longer_than_the_context_is_an_error_and_not_a_wrong_answer(tiny, tmp_path):
    """The tiny model has a context of 256 tokens, one per byte."""
    rows = [{"question": text, "answer": 1} for text in ("short", "a" * 300, "short too")]
    path = write_rows(tmp_path / "long.jsonl", rows)
    report = evaluate(tiny, load_question_set(str(path)), FEW, records=tmp_path, timed=3)
    times, scores = report.answer_time, report.adapted.scores
    assert (times.timed, times.questions) == (2, 2), "what failed is not timed"
    assert (scores.questions, scores.errors) == (3, 1)
    assert scores.wrong + scores.correct + scores.truncated + scores.unparsed == 2
    assert "but the context holds 256" in scores.first_error
    assert any("1 questions failed on model" in line for line in report.verdict)
    path.write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(
        RequestError, match=r"all questions of .*long\.jsonl failed; the first: the prompt has"
    ):
        evaluate(tiny, load_question_set(str(path)), FEW, records=tmp_path)


def test_a_failed_computation_ends_the_run_and_is_repeated(tiny, data, tmp_path):
    def failing(job, batches):
        yield from list(job.run([next(iter(batches))]))
        yield BatchResult(41, error="decode: failed", failed=True)

    with pytest.raises(FileError, match=r"tiny\.gguf: decode: failed"):
        evaluate(tiny, data, FEW, records=tmp_path / "records", executor=failing)
    report = evaluate(tiny, data, FEW, records=tmp_path / "records")
    whole = evaluate(tiny, data, FEW, records=tmp_path / "whole")
    assert report.adapted.scores.errors == 0 and lines(report) == lines(whole)


def test_a_finished_run_is_read_without_a_choice_of_speed_settings(tiny, data, tmp_path, monkeypatch):
    """The model was loaded for it."""
    first = evaluate(tiny, data, FEW, records=tmp_path)
    monkeypatch.setattr(plan.EnginePlan, "make", None)
    assert evaluate(tiny, data, FEW, records=tmp_path).adapted.scores == first.adapted.scores


def test_bad_files_are_refused_before_anything_is_written(tiny, lora, not_a_model, data, tmp_path):
    folder = tmp_path / "records"
    for model, change, error in (
        (not_a_model, {}, FileError),
        (tiny, {"base": not_a_model}, FileError),
        (tiny, {"adapter": tiny}, FileError),
    ):
        with pytest.raises(error):
            evaluate(model, data, FEW, records=folder, **change)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "9-shot"}, "prompt: '9-shot' is not one of zero-shot, refined, bare, 8-shot"),
        ({"effort": "extreme"}, "effort must be low, medium, high, not 'extreme'"),
        ({"system": "Think."}, "no system prompt"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(RequestError, match=message):
        replace(FEW, **change)


def test_one_sampled_answer_is_no_majority():
    """It was described as a majority of 1."""
    sampled = PromptSettings(threads=1, sampling=Sampling(temperature=0.7))
    assert sampled.description == "temperature 0.7, calculator on"
    assert replace(sampled, effort="medium").description == (
        "effort medium: majority of up to 8, temperature 0.7, calculator on"
    )
    assert replace(FEW, calculator=False).description == "greedy, calculator off"


def test_the_eight_shots_end_with_their_answers():
    shots = PROMPTS["8-shot"].shots
    values = [format_number(final_answer(answer)) for _, answer in shots]
    assert values == ["6", "5", "39", "8", "9", "29", "33", "8"]
    messages = PROMPTS["8-shot"].messages("How many?")
    assert [message.role for message in messages] == ["user", "assistant"] * 8 + ["user"]
    assert messages[-1].content == "How many?"
    assert PROMPTS["8-shot"].text("How many?").endswith("The answer is 8.\n\nQ: How many?\nA:")
    assert len({prompt.sha256 for prompt in PROMPTS.values()}) == 4


def answer(value, stop_reason=StopReason.END, tally=None):
    return Answer(value, "", stop_reason, Usage(1, 1), Timings(0, 0, 0), (), False, tally)


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (answer("3"), Outcome.CORRECT),
        (answer("3", StopReason.STOP), Outcome.CORRECT),
        (answer("4"), Outcome.WRONG),
        (answer(None), Outcome.UNPARSED),
        (answer("3", StopReason.LENGTH), Outcome.TRUNCATED),
        (answer(None, StopReason.LENGTH), Outcome.TRUNCATED),
        (answer("3", tally=VoteTally(2, 2, {"3": 1, "4": 1})), Outcome.CORRECT),
        (answer("4", tally=VoteTally(2, 2, {"4": 1})), Outcome.WRONG),
        (answer("3", tally=VoteTally(2, 2, {})), Outcome.CORRECT),
        (answer("3", StopReason.LENGTH, VoteTally(2, 2, {})), Outcome.TRUNCATED),
        (answer(None, tally=VoteTally(2, 2, {})), Outcome.UNPARSED),
    ],
)
def test_only_a_complete_answer_with_the_number_is_correct(given, outcome):
    assert grade(given, "3") is outcome


def records(outcomes):
    """Records with the outcomes that the letters abbreviate."""
    names = {outcome.value[0]: outcome for outcome in Outcome}
    return [
        QuestionRecord(
            number,
            "1",
            "1",
            names[letter],
            () if letter == "e" else (Sample("1", names[letter], False, 10, ""),),
            "too long" if letter == "e" else None,
        )
        for number, letter in enumerate(outcomes)
    ]


def test_scores_count_every_outcome_and_exclude_errors():
    found = score(records("ccwtue"))
    assert (found.questions, found.correct, found.wrong, found.truncated, found.unparsed, found.errors) == (
        *(6, 2, 1, 1, 1, 1),
    )
    assert found.accuracy.estimate == pytest.approx(2 / 5)
    assert found.first_error == "too long"
    assert found.tokens == 10


def test_pairs_exclude_errors_of_either_model():
    found = pair_scores(records("ccwwtec"), records("cwcwcce"))
    assert (found.questions, found.both, found.gained, found.lost, found.neither) == (5, 1, 2, 1, 1)
    assert found.difference.estimate == pytest.approx(1 / 5)
    assert found.p_value == 1
    assert pair_scores(records("e"), records("c")) is None


@pytest.mark.exhaustive
def test_the_interval_covers_the_true_difference():
    """In 20 simulated sets of 200 questions; the true difference is one of areas in the unit square."""
    true = (0.6 - 0.2) / 0.6 - 0.5  # P(0.6 a + 0.4 b <= 0.6) - P(0.6 a + 0.4 b <= 0.5) for uniform a and b
    random, covered = np.random.default_rng(7), 0
    for _ in range(20):
        hard = random.random(200)
        base, adapted = (
            records("".join("cw"[int(x > p)] for x in 0.6 * hard + 0.4 * random.random(200)))
            for p in (0.5, 0.6)
        )
        found = pair_scores(base, adapted)
        assert found.difference.low <= found.difference.estimate <= found.difference.high
        covered += found.difference.low <= true <= found.difference.high
    assert covered >= 16  # 19 of 20 are expected


@pytest.mark.parametrize(
    ("base", "adapted"), [("c" * 8, "c" * 8), ("cw" * 20, "ccww" * 10), ("ccw" * 9, "wcw" * 9)]
)
def test_so_many_more_questions_with_such_outcomes_narrow_the_interval(base, adapted):
    """By the square root of their number five times too many were asked for where few differ."""
    found = pair_scores(records(base), records(adapted))
    more = found.more_questions(0.05)
    counts = np.array([found.both, found.gained, found.lost, found.neither]) / found.questions
    enough, fewer = (paired_difference(*counts * (found.questions + more - off)) for off in (0, 1))
    assert enough.high - enough.low <= 0.1 < fewer.high - fewer.low


@pytest.mark.parametrize(
    ("base", "adapted", "start", "end"),
    [
        (
            "w" * 15,
            "c" * 10 + "w" * 5,
            "accuracy: better by 66.7 points (",
            "; 10 gained, 0 lost of 15, p = 0.002)",
        ),
        ("cccw", "ccww", "accuracy: no significant difference (", " points; 0 gained, 1 lost of 4, p = 1)"),
        ("cw" * 5, "cw" * 5, "accuracy: no significant difference (-", "; 0 gained, 0 lost of 10, p = 1)"),
        (
            "c" * 40 + "w" * 60,
            "c" * 45 + "w" * 55,
            "accuracy: better by 5.0",
            "5 gained, 0 lost of 100, p = 0.062)",
        ),
    ],
)
def test_the_verdict_is_by_the_interval(base, adapted, start, end):
    line = accuracy_module._describe_difference(pair_scores(records(base), records(adapted)))
    assert line.startswith(start) and line.endswith(end)
