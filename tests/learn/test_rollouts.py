"""Rollouts: what the file holds, resumption, and one clear line for each file that cannot be used."""

import json
from dataclasses import asdict

import pytest
from thirteen.errors import RequestError
from thirteen.learn.rollouts import (
    COMMON,
    QuestionRollouts,
    RolloutFile,
    Solution,
    read_rollouts,
)
from thirteen.learn.sample_rollouts import sample_rollouts
from thirteen.models.rows import TrainingRow
from thirteen.runtime.batch.reproducible_batches import BatchJob, GenerationSettings
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.request import Sampling

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
        for entry in entries:
            assert entry["prompt_tokens"] == len(engine.request(entry["question"]).tokens)
            assert len({tuple(one["tokens"]) for one in entry["solutions"]}) > 1
            assert all(len(one["tokens"]) == 8 for one in entry["solutions"] if not one["ended"])


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
    assert found.identity["questions"] == 3 and set(COMMON) == set(OURS)
    assert found.sampling == Sampling(0.7)


@pytest.mark.parametrize("temperature", [None, 0, -1, "1", True, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(tmp_path, temperature):
    rollouts = write(tmp_path / "file", "10", temperature=temperature)
    with pytest.raises(RequestError, match=r"line 1: sampling: (the )?temperature must be"):
        read_rollouts(rollouts, OURS)


def test_sampling_parameters_must_be_there_and_valid(tmp_path):
    path = write(tmp_path / "file", "10", top_p=1.5)
    with pytest.raises(
        RequestError, match=r"line 1: sampling: top_p must be above 0 and at most 1, not 1\.5"
    ):
        read_rollouts(path, OURS)
    path.write_text(path.read_text().replace('"top_p"', '"top_q"'))
    with pytest.raises(RequestError, match=r"line 1: sampling: 'top_p' is missing"):
        read_rollouts(path, OURS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapter_sha256": "3"}, "another adapter: adapter_sha256 is '3' in the file, None now"),
        ({"peft_sha256": "4"}, "another adapter: peft_sha256 is '4' in the file, None now"),
        ({"system": "Think."}, "rollouts with another prompt: system is 'Think.' in the file, None now"),
    ],
)
def test_rollouts_with_other_settings_are_refused(tmp_path, change, message):
    with pytest.raises(RequestError, match=message):
        read_rollouts(write(tmp_path / "file", "10", **change), OURS)


@pytest.mark.parametrize(
    ("rights", "message"),
    [
        (("00", "00"), "none of its 4 solutions is right"),
        (("11",), "none of its 2 solutions is wrong"),
        (("11", "00"), "each of its questions has either right or wrong solutions"),
    ],
)
def test_rollouts_without_a_contrast_are_refused(tmp_path, rights, message):
    with pytest.raises(
        RequestError, match=f"{message}: only questions that are sometimes right teach something"
    ):
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


@pytest.mark.parametrize("count", ["1.0", "true", '"1"', "null"])
def test_a_count_of_questions_that_is_no_integer_is_refused(tmp_path, count):
    """1.0 ended in a TypeError, and true was taken for 1."""
    path = write(tmp_path / "file", "10")
    path.write_text(path.read_text().replace('"questions": 1', f'"questions": {count}'))
    with pytest.raises(RequestError, match="file: line 1: 'questions' must be an integer, not "):
        read_rollouts(path, OURS)


@pytest.mark.parametrize("old", ['"question": "', '"answer": "'])
def test_a_lone_surrogate_is_refused(tmp_path, old):
    path = write(tmp_path / "file", "10")
    path.write_text(path.read_text().replace(old, old + "\\ud83d"))
    with pytest.raises(RequestError, match="file: line 2: has a lone surrogate, which is not a character"):
        read_rollouts(path, OURS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"solutions"', '"solution"'),
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
