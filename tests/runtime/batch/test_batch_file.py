"""Batch inference: answers in the order of the questions, identical after any interruption."""

import errno
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from thirteen.errors import FileError, OptionError, OutputError, RequestError
from thirteen.files import atomic_write
from thirteen.files.journal import FORMAT
from thirteen.runtime.batch import reproducible_batches
from thirteen.runtime.batch.batch_file import BatchFile
from thirteen.runtime.batch.reproducible_batches import (
    ENGINE,
    BatchJob,
    BatchResult,
    BatchRunner,
    GenerationSettings,
)
from thirteen.runtime.effort import Effort
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.grammar.grammar import from_schema
from thirteen.runtime.llama.context import Context, Span
from thirteen.runtime.llama.model import Model
from thirteen.runtime.plan import measurement, plan
from thirteen.runtime.plan.candidates import Candidates
from thirteen.runtime.plan.options import EngineOptions
from thirteen.runtime.plan.tuning import Tuning
from thirteen.runtime.request import Sampling

from ...interruption import Interrupted, stop_at
from ...json_lines import write_rows
from ...refusals import refused

pytestmark = pytest.mark.slow

COUNT = 50  # of two batches
FEW = GenerationSettings(max_tokens=12)
QUESTIONS = [f"What is {n} times {n % 7 + 2}?" for n in range(COUNT)]


@pytest.fixture
def job(tiny):
    return BatchJob(tiny, None, FEW, 1)


@pytest.fixture
def questions(tmp_path):
    return write_rows(
        tmp_path / "questions.jsonl", [{"question": text, "id": f"q{n}"} for n, text in enumerate(QUESTIONS)]
    )


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_line_of_a_text_file_is_a_question(job, questions, tmp_path):
    (text := tmp_path / "questions.txt").write_text("\n".join((QUESTIONS[0], "", f" {QUESTIONS[1]}\r", "")))
    report = BatchFile(text, tmp_path / "answers.jsonl").answer(job)
    rows = read(tmp_path / "answers.jsonl")
    assert [(row["line"], row["question"]) for row in rows] == [(1, QUESTIONS[0]), (3, QUESTIONS[1])]
    assert report.answered == 2
    with pytest.raises(FileError, match=r"questions\.jsonl: line 1: not JSON"):
        BatchFile(text.rename(tmp_path / "questions.jsonl"), tmp_path / "no.jsonl").answer(job)


def test_a_byte_order_mark_is_no_part_of_the_first_question(job, tmp_path):
    """It was asked too, and JSON lines behind it as they stand."""
    for name, text in (
        ("text", "Why?"),
        ("lines", '{"question": "Why?"}'),
        ("named.jsonl", '{"question": "Why?"}'),
    ):
        (questions := tmp_path / name).write_text(text, "utf-8-sig")
        BatchFile(questions, tmp_path / "answers").answer(job)
        assert [row["question"] for row in read(tmp_path / "answers")] == ["Why?"]
        (tmp_path / "answers").unlink()


def test_answers_are_those_of_the_engine_in_the_order_of_the_questions(job, questions, tmp_path):
    report = BatchFile(questions, tmp_path / "answers.jsonl").answer(job)
    answers = read(tmp_path / "answers.jsonl")
    assert [row["id"] for row in answers] == [f"q{n}" for n in range(COUNT)]
    assert [row["question"] for row in answers] == QUESTIONS
    with Engine(job.model, threads=1) as engine:
        single = [engine.answer(text, max_tokens=12).text for text in QUESTIONS]
    # Rounding depends on the batch, and may decide a token of a random model.
    assert sum(row["text"] == text for row, text in zip(answers, single, strict=True)) > 0.9 * COUNT
    assert (report.rows, report.answered, report.bad, report.earlier) == (COUNT, COUNT, (), 0)
    assert report.tokens == sum(row["usage"]["completion_tokens"] for row in answers)
    cut_off = [row for row in answers if row["stop_reason"] == "length"]
    assert report.cut_off == len(cut_off) and not any(row["value"] or row["sure"] for row in cut_off)
    assert [path.name for path in tmp_path.iterdir() if "answers" in path.name] == ["answers.jsonl"]


def test_answers_say_how_foreign_their_question_is(job, tmp_path, monkeypatch):
    """It was null, whatever the file's vocabulary."""
    monkeypatch.setattr(Model, "foreign_share", lambda _, text: len(text) / 4)
    path = write_rows(tmp_path / "questions.jsonl", [{"question": "abc"}])
    BatchFile(path, tmp_path / "answers.jsonl").answer(job)
    assert [row["foreign_share"] for row in read(tmp_path / "answers.jsonl")] == [0.75]


def test_the_records_stay_until_the_answers_are_on_disk(job, questions, tmp_path, monkeypatch):
    """An error in flushing the folder was ignored, and the records, the only durable copy, were deleted."""

    def fail(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    output = tmp_path / "answers.jsonl"
    with pytest.raises(Interrupted):
        BatchFile(questions, output).answer(job, progress=stop_at(COUNT))
    monkeypatch.setattr(atomic_write, "sync_folder", fail)
    with pytest.raises(OutputError, match="Input/output error"):
        BatchFile(questions, output).answer(job)
    assert len(read(tmp_path / "answers.jsonl.part")) == 1 + COUNT


@pytest.mark.parametrize("effort", [*Effort])
def test_a_batch_interrupted_anywhere_gives_the_same_file(effort, tiny, questions, tmp_path):
    job = BatchJob(tiny, None, GenerationSettings(max_tokens=6, effort=effort), 1)
    BatchFile(questions, tmp_path / "whole.jsonl").answer(job)
    part = tmp_path / "parts.jsonl.part"
    for count in (3, 17, 45):
        with pytest.raises(Interrupted):
            BatchFile(questions, tmp_path / "parts.jsonl").answer(job, progress=stop_at(count))
        assert len(read(part)) == 1 + count  # the first line is the header
        assert not (tmp_path / "parts.jsonl").exists()
    report = BatchFile(questions, tmp_path / "parts.jsonl").answer(job)
    assert report.earlier == 45
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not part.exists()


def test_answers_of_a_batch_match_its_schema(tiny, questions, tmp_path):
    schema = {"type": "object", "properties": {"ok": {"enum": ["yes", "no"]}}, "required": ["ok"]}
    schema |= {"additionalProperties": False}
    settings = GenerationSettings(max_tokens=40, grammar=from_schema(json.dumps(schema)))
    job = BatchJob(tiny, None, settings, 1)
    BatchFile(questions, tmp_path / "answers.jsonl").answer(job)
    assert {json.loads(row["text"])["ok"] for row in read(tmp_path / "answers.jsonl")} <= {"yes", "no"}
    assert job.identity != BatchJob(tiny, None, replace(settings, grammar=None), 1).identity
    with pytest.raises(OptionError, match="grammar"):
        replace(settings, effort=Effort.HIGH)


def test_a_later_batch_is_computed_as_a_first_one_is(tiny, monkeypatch):
    """While other requests were remembered, a slot stayed free: a resumed run gave other answers."""
    steps: list[list[tuple[int, int]]] = []
    decode = Context.decode

    def record(context: Context, spans: Sequence[Span]) -> list[int]:
        steps.append([(span.slot, len(span.tokens)) for span in spans])
        return decode(context, spans)

    settings = GenerationSettings(system="Be brief. " * 3, max_tokens=6, effort=Effort.MEDIUM)
    batch = dict(enumerate(["Why?", *QUESTIONS[:4]]))
    with BatchJob(tiny, None, settings, 1).load_engine() as engine:
        runner = BatchRunner(engine, settings)
        monkeypatch.setattr(Context, "decode", record)
        first = {one.number: one.tokens for one in runner.run(batch)}
        count = len(steps)
        assert {one.number: one.tokens for one in runner.run(batch)} == first
    assert steps[count:] == steps[:count] and max(map(len, steps)) == 8


def test_an_existing_output_is_not_overwritten(job, questions, tmp_path):
    (tmp_path / "answers.jsonl").write_text("mine\n")
    with pytest.raises(OutputError, match="already exists"):
        BatchFile(questions, tmp_path / "answers.jsonl").answer(job)
    assert (tmp_path / "answers.jsonl").read_text() == "mine\n"


def test_an_output_that_appears_meanwhile_is_not_overwritten(job, questions, tmp_path):
    output, part = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.part"
    with pytest.raises(OutputError, match="already exists"):
        BatchFile(questions, output).answer(job, progress=lambda *_: output.write_text("mine\n") and None)
    assert output.read_text() == "mine\n" and len(part.read_bytes().splitlines()) == COUNT + 1


def choose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flash: bool) -> None:
    """Let a measurement choose the attention; nothing was chosen before."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))

    def measure(candidates: Candidates, _: Model) -> Tuning:
        return Tuning(replace(candidates.ways[0], flash_attention=flash, kv="f16"), (), quiet=False)

    monkeypatch.setattr(measurement, "measure_settings", measure)


@pytest.mark.parametrize("kv", [None, "f16"])
def test_the_engines_of_a_job_measure_nothing_that_the_job_has_chosen(kv, tiny, monkeypatch, tmp_path):
    """What stayed as by default was measured again by each engine: its answers could differ."""
    choose(monkeypatch, tmp_path, flash=False)
    job = BatchJob(tiny, None, FEW, 1, ENGINE | EngineOptions(kv=kv)).decided()
    monkeypatch.setattr(plan, "find_tuning", None)
    with job.load_engine() as engine:
        settings = engine.plan.settings
    assert (settings.flash_attention, settings.kv, settings.prefix_bytes) == (False, "f16", 1 << 30)


def test_a_job_that_leaves_the_library_open_has_that_of_its_journal(tiny, tmp_path, monkeypatch):
    """With "auto" in words, the settings of one library were given to the other."""
    monkeypatch.delenv("THIRTEEN_LIBRARY")
    identity = {"flash_attention": False, "kv": "f16", "library": "ik"}
    (part := tmp_path / "answers.jsonl.part").write_text(json.dumps({"format": FORMAT, "batch": identity}))
    for name in (None, "auto"):
        job = BatchJob(tiny, None, FEW, 1, ENGINE | EngineOptions(library=name)).decided(part, "batch")
        assert job.engine["library"] == "ik", name


@pytest.mark.parametrize("flash", [False, True])
def test_a_batch_resumes_with_its_attention(flash, tiny, questions, tmp_path, monkeypatch):
    """Less free memory than before made it another batch. What the caller gives was replaced silently."""
    choose(monkeypatch, tmp_path, not flash)
    begun, other = (
        BatchJob(tiny, None, FEW, 1, ENGINE | EngineOptions(flash_attention=one, kv="f16"))
        for one in (flash, not flash)
    )
    now = BatchJob(tiny, None, FEW, 1)
    assert now.decided().allocation == other.allocation != begun.allocation
    output, whole = tmp_path / "answers.jsonl", tmp_path / "whole.jsonl"
    with pytest.raises(Interrupted):
        BatchFile(questions, output).answer(begun, progress=stop_at(3))
    with pytest.raises(RequestError, match="records of another run: flash_attention is"):
        BatchFile(questions, output).answer(other)
    assert BatchFile(questions, output).answer(now).earlier == 3
    BatchFile(questions, whole).answer(begun)
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda job: BatchJob(job.model, None, GenerationSettings(max_tokens=13), 1),
        lambda job: BatchJob(job.model, None, GenerationSettings(max_tokens=12, system="Be brief."), 1),
        lambda job: BatchJob(job.model, None, GenerationSettings(max_tokens=12, sampling=Sampling(0.5)), 1),
    ],
)
def test_a_batch_with_other_settings_does_not_resume_it(change, job, questions, tmp_path):
    output = tmp_path / "answers.jsonl"
    with pytest.raises(Interrupted):
        BatchFile(questions, output).answer(job, progress=stop_at(3))
    before = (tmp_path / "answers.jsonl.part").read_bytes()
    with pytest.raises(RequestError, match=r"answers\.jsonl\.part: records of another run: "):
        BatchFile(questions, output).answer(change(job))
    assert (tmp_path / "answers.jsonl.part").read_bytes() == before


def test_a_failed_computation_is_not_a_bad_row_and_is_repeated(job, questions, tmp_path):
    def failing(job: BatchJob, batches: Any) -> Any:
        first = next(iter(batches))
        yield from list(job.run([first]))[:5]
        yield BatchResult(7, error="decode: failed", failed=True)

    with pytest.raises(FileError, match="decode: failed"):
        BatchFile(questions, tmp_path / "answers.jsonl", skip_bad=True).answer(job, executor=failing)
    assert len(read(tmp_path / "answers.jsonl.part")) == 1 + 5
    report = BatchFile(questions, tmp_path / "answers.jsonl", skip_bad=True).answer(job)
    assert (report.answered, report.earlier, report.bad) == (COUNT, 5, ())


def test_an_answer_that_cannot_go_on_is_a_bad_line(job, questions, tmp_path, monkeypatch):
    """Where no token could follow in a grammar, no run of the batch came to an end."""
    score, calls = reproducible_batches.score, itertools.count()

    def limited(handle: Any) -> Any:
        if next(calls) % 9 == 8:
            raise RequestError("no token of the model can follow here")
        return score(handle)

    monkeypatch.setattr(reproducible_batches, "score", limited)
    with pytest.raises(RequestError, match=r"questions\.jsonl: line \d+: no token of the model can follow"):
        BatchFile(questions, tmp_path / "strict.jsonl").answer(job)
    report = BatchFile(questions, tmp_path / "answers.jsonl", skip_bad=True).answer(job)
    assert len(report.bad) >= 5 and report.answered == COUNT - len(report.bad)


DAMAGED = {
    "a row alone": {"value": ..., "text": ..., "line": ..., "question": ..., "id": ...},
    "a value that is a number": {"value": 7},
    "another line": {"line": 9},
    "another question": {"question": "What is 7 + 7?"},
    "an error that is none": {"error": None},
    "half a character": {"text": "\ud83d"},
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_records_are_refused_and_stay(what, job, tmp_path):
    """The run ended in a traceback, after it had removed the records."""
    path = write_rows(tmp_path / "questions.jsonl", [{"question": "1 + 1?", "id": 3}])
    output, part = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.part"
    with pytest.raises(Interrupted):
        BatchFile(path, output).answer(job, progress=stop_at(1))
    header, record = read(part)
    record |= DAMAGED[what]
    write_rows(part, [header, {name: value for name, value in record.items() if value is not ...}])
    damaged = part.read_bytes()
    with pytest.raises(RequestError) as error:
        BatchFile(path, output, skip_bad=True).answer(job)
    assert str(error.value) == f"{part}: line 2: not a record of line 1 of the questions"
    assert part.read_bytes() == damaged and not output.exists()


BAD = {
    "no JSON": ("question", "not JSON"),
    "no question": ({"ask": "What?"}, "'question' must be a non-empty string, not None"),
    "a question that is a number": ({"question": 3}, "'question' must be a non-empty string"),
    "an id that is a list": ({"question": "What?", "id": [1]}, "'id' must be a string or an integer"),
    "half a character": ('{"question": "1 + 1? \\ud83d"}', "lone surrogate"),
    "a question that is too long": ({"question": "What is it? " * 60}, "context"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_line_ends_the_batch_or_is_reported_and_skipped(what, job, tmp_path):
    bad, message = BAD[what]
    rows = [{"question": "1 + 1?"}, "", bad, {"question": "2 + 2?", "id": 7}]
    path = write_rows(tmp_path / "questions.jsonl", rows)
    with refused(f"{path}: line 3", message):
        BatchFile(path, tmp_path / "strict.jsonl").answer(job)
    assert not (tmp_path / "strict.jsonl").exists()
    report = BatchFile(path, tmp_path / "answers.jsonl", skip_bad=True).answer(job)
    assert (report.rows, report.answered, len(report.bad)) == (3, 2, 1)
    assert report.bad[0].startswith(f"{path}: line 3: ")
    assert message in report.bad[0]
    first, second, third = read(tmp_path / "answers.jsonl")
    assert (first["line"], second["line"], third["line"], third["id"]) == (1, 3, 4, 7)
    assert message in second["error"]
    assert first["text"] and third["text"]


def test_a_file_without_questions_is_rejected(job, tmp_path):
    for text in ("\n\n", "x\n"):
        (tmp_path / "questions.jsonl").write_text(text)
        with pytest.raises(FileError, match="has no question"):
            BatchFile(tmp_path / "questions.jsonl", tmp_path / "answers.jsonl", skip_bad=True).answer(job)


def test_a_run_killed_before_it_removed_the_records_is_finished_by_the_next(job, questions, tmp_path):
    """The next run said that the output exists, and the records stayed."""
    output, part = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.part"
    with pytest.raises(Interrupted):
        BatchFile(questions, output).answer(job, progress=stop_at(COUNT))
    records = part.read_bytes()
    BatchFile(questions, output).answer(job)
    answers = output.read_bytes()
    part.write_bytes(records)
    assert BatchFile(questions, output).answer(job).earlier == COUNT
    assert output.read_bytes() == answers and not part.exists()
    part.write_bytes(records)
    output.write_text("mine\n")
    with pytest.raises(OutputError, match="already exists"):
        BatchFile(questions, output).answer(job)
    assert (output.read_text(), part.read_bytes()) == ("mine\n", records)


def test_errors_of_a_run_that_skipped_them_end_one_that_does_not(job, tmp_path):
    """It wrote them as answers."""
    long = {"question": "What is it? " * 60}
    path = write_rows(tmp_path / "questions.jsonl", [long, {"question": "1 + 1?"}])
    output, part = tmp_path / "answers.jsonl", tmp_path / "answers.jsonl.part"
    with pytest.raises(Interrupted):
        BatchFile(path, output, skip_bad=True).answer(job, progress=stop_at(2))
    with pytest.raises(RequestError, match=r"questions\.jsonl: line 1: .*context"):
        BatchFile(path, output).answer(job)
    assert part.exists() and not output.exists()
    report = BatchFile(path, output, skip_bad=True).answer(job)
    assert (report.answered, len(report.bad), part.exists()) == (1, 1, False)
