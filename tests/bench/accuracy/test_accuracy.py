"""Runs with real engines: resumption gives the same log; grading, scores, pairs and the report."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from thirteen.bench.accuracy.accuracy import AccuracyRequest, paired_sentence, run_accuracy
from thirteen.bench.accuracy.datasets import load_question_set
from thirteen.bench.accuracy.evaluate import (
    Outcome,
    QuestionRecord,
    Sample,
    find_log,
    grade,
    pair_scores,
    score,
)
from thirteen.bench.accuracy.prompts import PROMPTS, PromptSettings
from thirteen.bench.environment import ModelSource
from thirteen.errors import RequestError
from thirteen.runtime.answer import Answer, StopReason, Timings, Usage, VoteTally
from thirteen.runtime.arithmetic.final_answer import final_answer, format_number
from thirteen.runtime.batch.reproducible_batches import BatchJob
from thirteen.runtime.options import Effort, Options

from ...interruption import Interrupted, stop_at
from ...json_lines import write_rows
from ...runtime.conftest import typed, write_gguf

pytestmark = pytest.mark.slow

FEW = PromptSettings(threads=1, options=Options(max_tokens=12))
QUESTIONS = [f"What is {n} + {n}? Tom has {n} apples." for n in range(50)]


def few(prompt: str = FEW.prompt, threads: int = 1, **options):
    """FEW with other settings."""
    return PromptSettings(prompt=prompt, threads=threads, options=replace(FEW.options, **options))


@pytest.fixture
def data(tmp_path):
    rows = ({"question": text, "answer": n} for n, text in enumerate(QUESTIONS))
    return load_question_set(str(write_rows(tmp_path / "sums.jsonl", rows)))


def evaluate(model, questions, settings, *, base=None, adapter=None, timed=0, stage=None, **others):
    models = [*([ModelSource(base)] if base else []), ModelSource(model, adapter)]
    request = AccuracyRequest(models=models, questions=questions, settings=settings, timed=timed, **others)
    return run_accuracy(request, **({"stage": stage} if stage else {}))


def lines(report):
    """Lines of the log, in the order of the questions."""
    header, *records = Path(report.adapted.records).read_text("utf-8").splitlines()
    return [header, *sorted(records, key=lambda line: json.loads(line)["number"])]


def test_an_interrupted_run_has_the_same_log_and_repeats_no_question(tiny, data, tmp_path, monkeypatch):
    whole = evaluate(tiny, data, FEW, records=tmp_path / "whole")
    for count in (7, 45):
        with pytest.raises(Interrupted):
            evaluate(tiny, data, FEW, records=tmp_path / "parts", stage=lambda _, at=count: stop_at(at))
    parts = evaluate(tiny, data, FEW, records=tmp_path / "parts")
    monkeypatch.setattr("thirteen.runtime.batch.reproducible_batches.Engine", None)  # cannot be loaded
    again = evaluate(tiny, data, FEW, records=tmp_path / "parts")
    assert (again.adapted, again.verdict) == (parts.adapted, parts.verdict)
    assert lines(parts) == lines(whole)
    assert len(lines(whole)) == 1 + len(QUESTIONS)
    assert len({line.partition("samples")[2] for line in lines(whole)[1:]}) > 25  # the answers do differ


def test_every_configuration_has_its_own_log_with_a_short_name(tiny, lora, data, tmp_path):
    other = write_gguf(tmp_path / "other.gguf", {"general.name": typed("another model")}, {})
    changed = {"effort": Effort.HIGH, "calculator": False, "max_tokens": 13, "seed": 1}
    settings = [few("refined"), few(threads=2), *(few(**{name: value}) for name, value in changed.items())]
    runs = [
        *((tiny, None, FEW, data), (other, None, FEW, data), (tiny, lora, FEW, data)),
        *((tiny, None, FEW, data.subsample(3)), *((tiny, None, changed, data) for changed in settings)),
    ]
    jobs = [(BatchJob(*job, job[2].threads).decided(), questions) for *job, questions in runs]
    assert len({find_log(*job, tmp_path)[0] for job in jobs}) == len(runs)
    model = shutil.copy(tiny, tmp_path / f"{'é' * 100}.gguf")
    path, _ = find_log(replace(jobs[0][0], model=model), replace(data, name="ü" * 120), tmp_path)
    assert path.name.startswith(f"{'é' * 24}-{'ü' * 24}-zero-shot-"), "it fits the file system"


def test_a_file_with_an_adapter_is_compared_with_the_same_file_without(tiny, lora, data, tmp_path):
    report = evaluate(tiny, data.subsample(9), FEW, base=tiny, adapter=lora, records=tmp_path, timed=3)
    assert (report.base.file.adapter, report.adapted.file.adapter) == (None, str(lora))
    assert report.base.file.sha256 == report.adapted.file.sha256
    assert report.paired.questions == 9
    right, seconds, counts, *_ = report.verdict
    assert right.startswith("Right answers: 0 of 9 questions of sums, the base 0: no difference within ")
    assert seconds.startswith("Seconds: an answer takes ") and "too few questions" in seconds
    assert counts == "0 gained, 0 lost of 9; McNemar's exact p = 1"
    assert report.seconds.timed == 3 and min(report.seconds.means) > 0 and report.seconds.ratio
    assert {len(row) for row in report.table().rows} <= {3, 4}


def test_a_model_alone_has_its_right_answers_and_seconds(tiny, data, tmp_path):
    """The records hold no times, so they stay the same bytes."""
    plain = evaluate(tiny, data.subsample(3), FEW, records=tmp_path)
    (path,) = tmp_path.glob("tiny-*.jsonl")
    content = path.read_bytes()
    timed = evaluate(tiny, data.subsample(3), FEW, records=tmp_path, timed=2)
    assert plain.seconds is None and path.read_bytes() == content
    assert timed.paired is timed.seconds.ratio is None and len(timed.seconds.means) == 1
    assert plain.verdict[0].startswith("Right answers: 0 of 3 questions of sums: 0 (0 to ")
    assert timed.table().header == ("", "model")


def test_a_question_longer_than_the_context_is_an_error_and_not_a_wrong_answer(tiny, tmp_path):
    """The tiny model has a context of 256 tokens, one per byte."""
    rows = [{"question": text, "answer": 1} for text in ("short", "a" * 300, "short too")]
    path = write_rows(tmp_path / "long.jsonl", rows)
    report = evaluate(tiny, load_question_set(str(path)), FEW, records=tmp_path, timed=3)
    scores = report.adapted.scores
    assert report.seconds.timed == 2, "what failed is not timed"
    assert (scores.questions, scores.errors) == (3, 1)
    assert scores.wrong + scores.correct + scores.truncated + scores.unparsed == 2
    assert "but the context holds 256" in scores.first_error
    assert any("1 questions failed on tiny.gguf" in line for line in report.verdict)
    path.write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(
        RequestError, match=r"all questions of .*long\.jsonl failed; the first: the prompt has"
    ):
        evaluate(tiny, load_question_set(str(path)), FEW, records=tmp_path)


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


def test_only_a_complete_answer_with_the_number_is_correct():
    for given, outcome in (
        (answer("3"), Outcome.CORRECT),
        (answer("4"), Outcome.WRONG),
        (answer(None), Outcome.UNPARSED),
        (answer("3", StopReason.LENGTH), Outcome.TRUNCATED),
        (answer("3", tally=VoteTally(2, 2, {"3": 1, "4": 1})), Outcome.CORRECT),
    ):
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
    shorter = [replace(one, samples=(replace(one.samples[0], tokens=5),)) for one in records("cw" * 20)]
    ratio = pair_scores(records("cw" * 20), shorter).tokens_ratio
    assert (ratio.low, ratio.estimate, ratio.high) == (0.5, 0.5, 0.5)


def test_the_right_answers_in_a_sentence():
    for base, adapted, sentence in (
        ("w" * 15, "c" * 10 + "w" * 5, "10 of 15 questions, the base 0: 67 points more (34 to 85)."),
        ("c" * 10 + "w" * 5, "w" * 15, "0 of 15 questions, the base 10: 67 points fewer (34 to 85)."),
        ("cw" * 5, "cw" * 5, "5 of 10 questions, the base 5: no difference within 17 points; more "),
        ("c" * 900 + "w" * 100, "c" * 900 + "w" * 100, "the base 900: no difference within 0 points."),
    ):
        found = paired_sentence(pair_scores(records(base), records(adapted)), "questions")
        assert found.startswith("Right answers: ") and sentence in found
