"""Rollouts: what the file holds, resumption, and one clear line for each file that cannot be used."""

import json
import re
from dataclasses import asdict, replace

import pytest
from thirteen.errors import RequestError
from thirteen.learn.rollouts import (
    COMMON,
    QuestionRollouts,
    RolloutFile,
    Solution,
    read_advantage_rows,
    read_rollout_rows,
    read_rollouts,
)
from thirteen.learn.sample_rollouts import is_correct, sample_rollouts
from thirteen.models.rows import TrainingRow
from thirteen.runtime.batch.reproducible_batches import BatchJob, GenerationSettings
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.request import Sampling, StopReason

from ..runtime.conftest import write_gguf

ROWS = [TrainingRow(f"What is {n} and {n}?", "", str(2 * n)) for n in range(30)]
SETTINGS = GenerationSettings(votes=4, sampling=Sampling(0.7), max_tokens=8)
OURS = {"adapter_sha256": None, "peft_sha256": None, "system": None}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf", {}, {})


class Interrupted(Exception):
    pass


def test_an_interrupted_run_has_the_same_file(tiny, tmp_path):
    job = BatchJob(tiny, None, SETTINGS, threads=1)
    whole = sample_rollouts(job, ROWS, tmp_path / "whole.jsonl")

    def interrupt(done, total):
        if done == 14:
            raise Interrupted

    with pytest.raises(Interrupted):
        sample_rollouts(job, ROWS, tmp_path / "parts.jsonl", progress=interrupt)
    parts = sample_rollouts(job, ROWS, tmp_path / "parts.jsonl")
    files = [sorted((tmp_path / name).read_text().splitlines()) for name in ("whole.jsonl", "parts.jsonl")]
    assert files[0] == files[1] and len(files[0]) == 31
    assert (whole.questions, whole.samples, whole.errors) == (30, 4, 0) == (parts.questions, parts.samples, 0)
    assert whole.sometimes_right + whole.always_right + whole.never_right == 30
    again = sample_rollouts(
        job, ROWS, tmp_path / "whole.jsonl", executor=lambda job, batches: iter_none(batches)
    )
    assert again == whole


def iter_none(batches):
    assert not list(batches)
    yield from ()


def test_the_tokens_are_those_of_the_answers(tiny, tmp_path):
    job = BatchJob(tiny, None, SETTINGS, threads=1)
    path = tmp_path / "rollouts.jsonl"
    summary = sample_rollouts(job, ROWS[:5], path)
    entries = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    assert summary.tokens == pytest.approx(
        sum(len(one["tokens"]) for entry in entries for one in entry["solutions"]) / 20
    )
    with Engine(tiny, threads=1) as engine:
        answer = replace(engine.answer("1?", max_tokens=4), value="14", stop_reason=StopReason.END)
        for entry in entries:
            assert entry["prompt_tokens"] == len(engine.request(entry["question"]).tokens)
            assert len({tuple(one["tokens"]) for one in entry["solutions"]}) > 1
            assert all(len(one["tokens"]) == 8 for one in entry["solutions"] if not one["ended"])
    row = TrainingRow("7 + 7?", "", "14.0")
    assert is_correct(answer, row)
    for wrong in ({"stop_reason": StopReason.LENGTH}, {"value": None}, {"value": "1"}):
        assert not is_correct(replace(answer, **wrong), row)


def test_a_question_that_does_not_fit_is_an_error(tiny, tmp_path):
    long = TrainingRow("a" * 300, "", "1")
    job = BatchJob(tiny, None, SETTINGS, threads=1)
    summary = sample_rollouts(job, [long, ROWS[0]], tmp_path / "two.jsonl")
    assert (summary.questions, summary.errors) == (2, 1)
    with pytest.raises(RequestError, match=r"one\.jsonl: no question could be asked; the first: .*holds 256"):
        sample_rollouts(job, [long], tmp_path / "one.jsonl")


def test_rollouts_of_other_settings_do_not_resume(tiny, tmp_path):
    path = tmp_path / "rollouts.jsonl"
    sample_rollouts(BatchJob(tiny, None, SETTINGS, threads=1), ROWS[:2], path)
    other = GenerationSettings(votes=4, sampling=Sampling(0.8), max_tokens=8)
    with pytest.raises(RequestError, match=r"another run: temperature is 0.7 in the file, 0.8 now"):
        sample_rollouts(BatchJob(tiny, None, other, threads=1), ROWS[:2], path)
    with pytest.raises(RequestError, match="samples must be at least 2, not 1"):
        sample_rollouts(BatchJob(tiny, None, GenerationSettings(), threads=1), ROWS[:2], tmp_path / "x")


def write(path, *rights, **identity):
    """A file with a question for each string: "10" has a right and a wrong solution."""
    common = OURS | asdict(Sampling(0.7)) | {"questions": len(rights)}
    with RolloutFile(path, common | identity) as file:
        for number, outcomes in enumerate(rights):
            solutions = tuple(Solution((number, n), True, right == "1") for n, right in enumerate(outcomes))
            file.add(QuestionRollouts(number, f"question {number}", "1", 20, solutions))
    return path


def test_a_complete_file_is_read(tmp_path):
    found = read_rollouts(write(tmp_path / "file", "10", "11", "00"), OURS)
    assert [(one.right, one.sometimes_right) for one in found.questions] == [
        (1, True),
        (2, False),
        (0, False),
    ]
    assert found.questions[0].solutions[1] == Solution((0, 1), True, False)
    assert set(COMMON) == set(OURS)
    assert (found.sampling, found.calculator) == (Sampling(0.7), False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapter_sha256": "3"}, "another adapter: adapter_sha256 is '3' in the file, None now"),
        ({"peft_sha256": "4"}, "another adapter: peft_sha256 is '4' in the file, None now"),
        ({"system": "Think."}, "rollouts with another prompt: system is 'Think.' in the file, None now"),
        ({"top_p": 1.5}, r"line 1: sampling: top_p must be above 0 and at most 1, not 1\.5"),
        *(
            ({"temperature": value}, r"line 1: sampling: (the )?temperature must be")
            for value in (None, 0, -1, "1", True, float("nan"), float("inf"))
        ),
        *(
            ({"questions": value}, "line 1: 'questions' must be an integer, not ")
            for value in (1.0, True, "1", None)  # 1.0 ended in a TypeError, and true was taken for 1
        ),
    ],
)
def test_rollouts_with_other_settings_are_refused(tmp_path, change, message):
    with pytest.raises(RequestError, match=message):
        read_rollouts(write(tmp_path / "file", "10", **change), OURS)


def test_sampling_parameters_must_be_there(tmp_path):
    path = write(tmp_path / "file", "10")
    path.write_text(path.read_text().replace('"top_p"', '"top_q"'))
    with pytest.raises(RequestError, match=r"line 1: sampling: 'top_p' is missing"):
        read_rollouts(path, OURS)


@pytest.mark.parametrize("rights", [("00", "00"), ("11",), ("11", "00")])
def test_rollouts_without_a_contrast_are_refused(tmp_path, rights):
    with pytest.raises(RequestError, match="no question has right and wrong solutions"):
        read_rollouts(write(tmp_path / "file", *rights), OURS)


def test_files_that_are_cut_off_or_something_else_are_refused(tmp_path):
    path = write(tmp_path / "file", "10", "10", "10")
    content = path.read_bytes()
    for cut in (content[: content.rindex(b"\n", 0, -1) + 1], content[:-1], content[:-40]):
        path.write_bytes(cut)
        with pytest.raises(RequestError, match="cut off: it holds 2 of 3 questions"):
            read_rollouts(path, OURS)
    for other in (b"", b'{"question": "1"}\n', b"\xff\n", b'{"format": 1, "batch": {}}\n', b"[" * 10_000):
        path.write_bytes(other)
        with pytest.raises(RequestError, match="not a file of rollouts"):
            read_rollouts(path, OURS)
    path.write_bytes(content.partition(b"\n")[0].replace(b'"questions": 3', b'"questions": 0'))
    with pytest.raises(RequestError, match="cut off: it holds 0 of 0 questions"):
        read_rollouts(path, OURS)
    path.write_bytes(content.replace(b'"number": 2', b'"number": 1'))
    with pytest.raises(RequestError, match="the numbers of its 3 questions are not 0 to 2"):
        read_rollouts(path, OURS)
    with pytest.raises(RequestError, match="nothing"):
        read_rollouts(tmp_path / "nothing", OURS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"solutions"', '"solution"'),
        ('"question 0"', '"\\ud83d"'),  # a lone surrogate
        ('"number": 0', '"number": Infinity'),
        ('"number": 0', '"number": 0.0'),
        ('"question": "question 0"', '"question": 7'),
        ('"tokens": [0, 0]', '"tokens": [1e999]'),
        ('"tokens": [0, 0]', '"tokens": "00"'),
        ('"right": true', '"right": "true"'),
        ('"ended": true', '"ended": 1'),
        ('"error": null', '"error": {}'),
        ('"error": null', '"error": [1]'),
        ('"solutions": [', '"solutions": [' + 64 * '{"tokens": [], "ended": true, "right": true}, '),
    ],
)
def test_a_question_of_other_types_is_refused(tmp_path, old, new):
    path = write(tmp_path / "file", "10")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(RequestError, match="file: line 2: not a question with its solutions"):
        read_rollouts(path, OURS)


def cut_off(path, outcome):
    """Let the first solution with this outcome end at the limit of tokens."""
    path.write_text(path.read_text().replace(f'"ended": true, {outcome}', f'"ended": false, {outcome}', 1))


def test_right_solutions_weigh_as_much_as_their_advantage(tmp_path):
    """Of GRPO: with n solutions of which k are right, sqrt((n - k) / k)."""
    path = write(tmp_path / "file", "110", "1000", "1110", "11", "00")
    cut_off(path, '"right": true')
    found = read_rollout_rows(path, 1, seed=3)
    rows = found.training + found.held_out
    expected = {(0, 1): 2**-0.5, (1, 0): 3**0.5} | {(2, n): 3**-0.5 for n in range(3)}
    assert {row.tokens: row.weight for row in rows} == pytest.approx(expected)  # not what was cut off
    assert not {row.question for row in found.training} & {row.question for row in found.held_out}
    assert len({row.question for row in found.held_out}) == 1 and not found.calculator


def test_a_question_that_was_asked_again_is_in_one_part(tmp_path):
    path = write(tmp_path / "file", *["10"] * 12)
    again = re.sub(r"question (\d+)", lambda match: f"question {int(match[1]) // 4}", path.read_text())
    path.write_text(again)  # three questions, four times each
    rows = read_rollout_rows(path, 2, seed=3)
    assert len(rows.held_out) == 2 and rows.training
    assert not {row.question for row in rows.training} & {row.question for row in rows.held_out}


MIXED = ("10", "1000", "1110", "11", "00", *["10"] * 9)


def weights_of(path, question):
    found = read_advantage_rows(path)
    return found.questions, [row.weight for row in found.rows if row.question == question]


def test_advantages_are_the_outcome_less_that_of_the_others(tmp_path):
    path = write(tmp_path / "file", *MIXED, temperature=0.5)
    assert weights_of(path, "question 0") == (14, [0.5, -0.5])
    assert weights_of(path, "question 1")[1] == pytest.approx([1 / 4, -1 / 12, -1 / 12, -1 / 12])
    found = read_advantage_rows(path)
    assert len({row.question for row in found.rows}) == 12  # two are always or never right
    assert (found.temperature, found.calculator, found.adapter) == (0.5, False, None)


def test_a_solution_that_was_cut_off_is_wrong_and_has_no_end(tmp_path):
    """The gradient is that of a right solution within the limit: to end in time is part of it."""
    path = write(tmp_path / "file", *MIXED)
    cut_off(path, '"right": false')
    right, wrong = (row for row in read_advantage_rows(path).rows if row.question == "question 0")
    assert (right.weight, right.ended, wrong.weight, wrong.ended) == (0.5, True, -0.5, False)


def test_a_question_that_was_asked_again_counts_once(tmp_path):
    """Each time it was a full estimate of the question's gradient."""
    path = write(tmp_path / "file", *MIXED)
    path.write_text(path.read_text().replace("question 5", "question 0"))
    assert weights_of(path, "question 0") == (13, pytest.approx([1 / 6, -1 / 6] * 2))
