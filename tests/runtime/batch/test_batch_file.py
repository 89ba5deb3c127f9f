"""Batch inference: answers in the order of the questions, identical after any interruption."""

import json
from dataclasses import replace

import pytest
from thirteen.errors import FileError, OutputError, RequestError
from thirteen.runtime.batch.batch_file import BatchFile
from thirteen.runtime.batch.reproducible_batches import BatchJob, BatchResult, BatchSettings, answer_batch
from thirteen.runtime.engine.engine import Engine
from thirteen.runtime.engine.handle import Handle
from thirteen.runtime.grammar import from_lark
from thirteen.runtime.llama.context import Context
from thirteen.runtime.options import Effort, Options

from ...interruption import Interrupted, stop_at
from ...json_lines import write_rows
from ...refusals import refused

pytestmark = pytest.mark.slow

COUNT = 50  # of two batches
QUESTIONS = [f"What is {n} times {n % 7 + 2}?" for n in range(COUNT)]
LONG = {"question": "What is it? " * 60}


@pytest.fixture
def ask(tiny):
    """ask(**options): a job with these options."""
    return lambda **options: BatchJob(tiny, None, BatchSettings(options=Options(**options)), 1)


@pytest.fixture
def job(ask):
    return ask(max_tokens=12)


@pytest.fixture
def questions(tmp_path):
    return write_rows(
        tmp_path / "questions.jsonl", [{"question": text, "id": f"q{n}"} for n, text in enumerate(QUESTIONS)]
    )


@pytest.fixture
def output(tmp_path):
    return tmp_path / "answers.jsonl"


@pytest.fixture
def part(tmp_path):
    return tmp_path / "answers.jsonl.part"


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def interrupt(batch, job, count):
    """End a run where so many rows are done."""
    with pytest.raises(Interrupted):
        batch.answer(job, progress=stop_at(count))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", f"{QUESTIONS[0]}\n\n {QUESTIONS[1]}\r\n", [(1, QUESTIONS[0]), (3, QUESTIONS[1])]),
        ("a.txt", '\ufeff{"question": "Why?"}', [(1, "Why?")]),
        ("a.jsonl", '\ufeff{"question": "Why?"}', [(1, "Why?")]),
    ],
)
def test_questions_are_lines_of_text_or_of_json(name, text, expected, job, output, tmp_path):
    (tmp_path / name).write_text(text)
    assert BatchFile(tmp_path / name, output).answer(job).answered == len(expected)
    assert [(row["line"], row["question"]) for row in read(output)] == expected


def test_answers_are_those_of_the_engine_in_the_order_of_the_questions(job, questions, output, tmp_path):
    report = BatchFile(questions, output).answer(job)
    answers = read(output)
    assert [row["id"] for row in answers] == [f"q{n}" for n in range(COUNT)]
    assert [row["question"] for row in answers] == QUESTIONS
    with Engine(job.model, threads=1) as engine:
        single = [engine.answer(text, max_tokens=12).text for text in QUESTIONS]
    # Rounding depends on the batch, and may decide a token of a random model.
    assert sum(row["text"] == text for row, text in zip(answers, single, strict=True)) > 0.9 * COUNT
    assert (report.rows, report.answered, report.bad, report.earlier) == (COUNT, COUNT, (), 0)
    assert report.tokens == sum(row["usage"]["completion_tokens"] for row in answers)
    assert report.cut_off == sum(row["stop_reason"] == "length" for row in answers) > 0
    assert [path.name for path in tmp_path.iterdir() if "answers" in path.name] == ["answers.jsonl"]


def test_an_interrupted_batch_gives_the_same_file(job, questions, output, part, tmp_path):
    BatchFile(questions, tmp_path / "whole.jsonl").answer(job)
    for count in (3, 17, 45):
        interrupt(BatchFile(questions, output), job, count)
        assert len(read(part)) == 1 + count and not output.exists()  # the first line is the header
    assert BatchFile(questions, output).answer(job).earlier == 45
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not part.exists()


def test_a_later_batch_is_computed_as_a_first_one_is(ask, monkeypatch):
    """While other requests were remembered, a slot stayed free: a resumed run gave other answers."""
    steps: list[list[tuple[int, int]]] = []
    decode = Context.decode

    def record(context, spans):
        steps.append([(span.slot, len(span.tokens)) for span in spans])
        return decode(context, spans)

    job = ask(system="Be brief. " * 3, max_tokens=6, effort=Effort.MEDIUM)
    batch = dict(enumerate(["Why?", *QUESTIONS[:4]]))
    with job.load_engine() as engine:
        monkeypatch.setattr(Context, "decode", record)
        first, again = (
            {one.number: one.tokens for one in answer_batch(engine, job.settings, batch)} for _ in range(2)
        )
    half = len(steps) // 2
    assert again == first and steps[half:] == steps[:half] and max(map(len, steps)) == 8


@pytest.mark.parametrize(
    ("differs", "options", "engine"),
    [
        ("max_tokens is 12", {"max_tokens": 13}, {}),
        ("system is None", {"system": "Be brief."}, {}),
        ("grammar is None", {"grammar": from_lark("start: /[a-z]+/")}, {}),
        ("kv is 'f16'", {}, {"kv": "bf16"}),
    ],
)
def test_a_batch_with_other_settings_does_not_resume(differs, options, engine, ask, questions, output, part):
    begun = ask(max_tokens=12)
    begun = replace(begun, engine=replace(begun.engine, flash_attention=True, kv="f16"))
    settings = BatchSettings(options=replace(begun.settings.options, **options))
    interrupt(BatchFile(questions, output), begun, 3)
    before = part.read_bytes()
    with refused(f"{part}: records of another run: {differs} in the file, ", " now", RequestError):
        other = replace(begun, settings=settings, engine=replace(begun.engine, **engine))
        BatchFile(questions, output).answer(other)
    assert part.read_bytes() == before


def test_what_a_job_leaves_open_is_decided_once_for_all_workers(job):
    engine = (decided := job.decided()).engine
    assert None not in (engine.flash_attention, engine.kv, engine.library)
    assert decided.decided() == decided and decided.identity == decided.decided().identity


def test_a_failed_computation_is_not_a_bad_row_and_is_repeated(job, questions, output, part):
    def failing(job, batches):
        first = next(iter(batches))
        yield from list(job.run([first]))[:5]
        yield BatchResult(7, error="decode: failed", failed=True)

    with pytest.raises(FileError, match="decode: failed"):
        BatchFile(questions, output, skip_bad=True).answer(job, executor=failing)
    assert len(read(part)) == 1 + 5
    report = BatchFile(questions, output, skip_bad=True).answer(job)
    assert (report.answered, report.earlier, report.bad) == (COUNT, 5, ())


def test_an_answer_that_cannot_go_on_is_a_bad_line(job, questions, output, monkeypatch):
    """Where no token could follow in a grammar, no run of the batch came to an end."""
    answer, numbers = Handle.answer, dict[Handle, int]()

    def limited(handle):
        if numbers.setdefault(handle, len(numbers)) % 9 == 8:
            raise RequestError("no token of the model can follow here")
        return answer(handle)

    monkeypatch.setattr(Handle, "answer", limited)
    report = BatchFile(questions, output, skip_bad=True).answer(job)
    assert len(report.bad) == 5 and report.answered == COUNT - 5


@pytest.mark.parametrize("outcome", [None, {"text": "4"}, "half a character: \ud83d"])
def test_damaged_records_are_refused_and_stay(outcome, job, output, part, tmp_path):
    """The run ended in a traceback, after it had removed the records."""
    path = write_rows(tmp_path / "questions.jsonl", [{"question": "1 + 1?", "id": 3}])
    interrupt(BatchFile(path, output), job, 1)
    header, record = read(part)
    damaged = write_rows(part, [header, record | {"outcome": outcome}]).read_bytes()
    with refused(f"{part}: line 2", "", FileError):
        BatchFile(path, output, skip_bad=True).answer(job)
    assert part.read_bytes() == damaged and not output.exists()


BAD = {
    "no JSON": ("question", "not JSON"),
    "no question": ({"ask": "What?"}, "'question' must be a non-empty string, not None"),
    "an id that is a list": ({"question": "What?", "id": [1]}, "'id' must be a string or an integer"),
    "half a character": ('{"question": "1 + 1? \\ud83d"}', "lone surrogate"),
    "a question that is too long": (LONG, "context"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_line_ends_the_batch_or_is_reported_and_skipped(what, job, output, tmp_path):
    bad, message = BAD[what]
    rows = [{"question": "1 + 1?"}, "", bad, {"question": "2 + 2?", "id": 7}]
    path = write_rows(tmp_path / "questions.jsonl", rows)
    with refused(f"{path}: line 3: ", message):
        BatchFile(path, tmp_path / "strict.jsonl").answer(job)
    assert not (tmp_path / "strict.jsonl").exists()
    report = BatchFile(path, output, skip_bad=True).answer(job)
    assert (report.rows, report.answered, len(report.bad)) == (3, 2, 1)
    first, second, third = read(output)
    assert (first["line"], second["line"], third["line"], third["id"]) == (1, 3, 4, 7)
    assert message in second["error"] and report.bad[0] == f"{path}: line 3: {second['error']}"
    assert first["text"] and third["text"]


@pytest.mark.parametrize("text", ["\n\n", "x\n"])
def test_a_file_without_questions_is_rejected(text, job, output, tmp_path):
    (tmp_path / "questions.jsonl").write_text(text)
    with pytest.raises(FileError, match="has no question"):
        BatchFile(tmp_path / "questions.jsonl", output, skip_bad=True).answer(job)


def test_errors_of_a_run_that_skipped_them_end_one_that_does_not(job, output, part, tmp_path):
    """It wrote them as answers."""
    path = write_rows(tmp_path / "questions.jsonl", [LONG, {"question": "1 + 1?"}])
    interrupt(BatchFile(path, output, skip_bad=True), job, 2)
    with pytest.raises(FileError, match=r"questions\.jsonl: line 1: .*context"):
        BatchFile(path, output).answer(job)
    assert part.exists() and not output.exists()
    report = BatchFile(path, output, skip_bad=True).answer(job)
    assert (report.answered, len(report.bad), part.exists()) == (1, 1, False)


def test_an_output_that_exists_is_not_overwritten(job, questions, output, part):
    batch = BatchFile(questions, output)
    with pytest.raises(OutputError, match="already exists"):
        batch.answer(job, progress=lambda *_: output.write_text("mine\n") and None)
    assert output.read_text() == "mine\n" and len(read(part)) == COUNT + 1
    part.unlink()
    with pytest.raises(OutputError, match="already exists"):
        batch.answer(job)
    assert output.read_text() == "mine\n" and not part.exists()
