"""Logs survive interruptions, and never mix with those of another run."""

import json

import pytest
from thirteen.bench.accuracy.eval_log import EvalLog, Outcome, QuestionRecord, Sample
from thirteen.errors import OutputError, RequestError

TOTAL, BATCH = 8, 3
RUN = {"model_sha256": "ab" * 32, "adapter_sha256": None, "temperature": 0.7, "prompt": "zero-shot"}


def record(number):
    samples = tuple(Sample(str(vote), Outcome.CORRECT, True, 5, "It is\n\u2028½") for vote in range(2))
    return QuestionRecord(number, "3", "1", Outcome.WRONG, samples)


def failed(number):
    return QuestionRecord(number, "3", None, Outcome.ERROR, (), "too long")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "run.jsonl"


def open_log(path, run=RUN):
    return EvalLog(path, run, TOTAL, BATCH)


def written(path, numbers):
    with open_log(path) as records:
        for number in numbers:
            records.append(record(number))
    return path.read_bytes()


def test_an_appended_record_is_on_disk_at_once(path):
    with open_log(path) as records:
        assert not path.exists() and not path.parent.exists()  # no file without a record
        records.append(record(1))
        header, line = path.read_bytes().splitlines()
        assert json.loads(header) == {"format": 1, "sitting": RUN}
        assert json.loads(line)["number"] == 1


def test_records_are_read_back_in_the_order_of_the_questions(path):
    numbers = [2, 0, 1, 5, 4, 3, 7, 6]
    with open_log(path) as records:
        for number in numbers:
            records.append(record(number) if number != 4 else failed(number))
    with open_log(path) as again:
        assert len(again) == TOTAL
        assert list(again) == [record(n) if n != 4 else failed(n) for n in range(TOTAL)]


@pytest.mark.parametrize(("count", "complete"), [(0, 0), (2, 0), (3, 3), (5, 3), (6, 6), (7, 6), (8, 8)])
def test_an_interrupted_batch_is_dropped_and_the_others_stay(path, count, complete):
    whole = written(path, range(TOTAL))
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[: 1 + count]))
    with open_log(path) as records:
        assert len(records) == complete
        for number in range(complete, TOTAL):
            records.append(record(number))
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("numbers", "complete"),
    [((3, 4, 5, 0, 1), 3), ((6, 7, 2, 1, 0, 3), 5), ((6, 3, 7, 4, 5, 0), 5), ((0, 3), 0), ((7, 6), 2)],
)
def test_batches_may_come_in_any_order_and_only_complete_ones_stay(path, numbers, complete):
    written(path, numbers)
    with open_log(path) as records:
        assert len(records) == complete
        assert {number for number in range(TOTAL) if number in records} == set(numbers[:complete])
        for number in set(range(TOTAL)) - set(numbers[:complete]):
            records.append(record(number))
    with open_log(path) as again:
        assert [found.number for found in again] == list(range(TOTAL))


@pytest.mark.slow
def test_a_file_torn_at_any_byte_is_resumed(path):
    """Including within the first line and within a character."""
    whole = written(path, range(TOTAL))
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with open_log(path) as records:
            complete = max(0, whole[:length].count(b"\n") - 1)  # without the first line
            assert len(records) == complete // BATCH * BATCH
            for number in range(len(records), TOTAL):
                records.append(record(number))
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "8-shot"}, "prompt is 'zero-shot' in the file, '8-shot' now"),
        ({"temperature": 0.0}, "temperature is 0.7 in the file, 0.0 now"),
        ({"adapter_sha256": "cd"}, "adapter_sha256 is None in the file, 'cd' now"),
        ({"new": 1}, "new is None in the file, 1 now"),
    ],
)
def test_the_log_of_another_run_is_refused_and_unchanged(path, change, message):
    whole = written(path, range(5))
    with pytest.raises(RequestError, match=message) as error:
        open_log(path, RUN | change)
    assert str(error.value).startswith(str(path))
    assert path.read_bytes() == whole


GOOD = json.dumps({"format": 1, "sitting": RUN})
SAMPLE = {"value": None, "outcome": "unparsed", "verified": False, "tokens": 5, "text": "?"}
LINE = {"number": 0, "expected": "1", "value": None, "outcome": "error", "samples": [], "error": "no"}
BAD = {
    "no header": (["{}"], "not a record of this kind of run"),
    "no JSON": (["question,answer"], "not a record of this kind of run"),
    "nested without end": (["[" * 100_000], "not a record of this kind of run"),
    "a later format": ([json.dumps({"format": 2, "sitting": RUN})], "records of format 2, not 1"),
    "a line of something else": ([GOOD, "{}"], "line 2: number is missing"),
    "a torn line within": ([GOOD, json.dumps(LINE), '{"number": 1'], "line 3: not a record"),
    "an unknown outcome": (
        [GOOD, json.dumps(LINE | {"outcome": "lucky"})],
        "line 2: outcome: 'lucky' should be",
    ),
    "a number that is none": ([GOOD, json.dumps(LINE | {"number": "0"})], "line 2: number: '0' should be"),
    "no samples of a right answer": (
        [GOOD, json.dumps(LINE | {"outcome": "correct"})],
        "line 2: no samples, but the outcome is correct",
    ),
    "tokens that are text": (
        [GOOD, json.dumps(LINE | {"samples": [SAMPLE | {"tokens": "x"}]})],
        "line 2: samples[0]: tokens: 'x' should be a valid integer",
    ),
    "no tokens": (
        [GOOD, json.dumps(LINE | {"samples": [SAMPLE | {"tokens": 0}]})],
        "line 2: samples[0]: tokens: 0 should be greater than or equal to 1",
    ),
    "samples that are none": ([GOOD, json.dumps(LINE | {"samples": [7]})], "line 2: samples[0]: 7 should be"),
    "a question twice": ([GOOD, *[json.dumps(LINE)] * 3], "unexpected record of question 0"),
    "no question of the set": (
        [GOOD, *(json.dumps(LINE | {"number": n}) for n in (0, 1, TOTAL + 1))],
        f"unexpected record of question {TOTAL + 1}",
    ),
    "no question of the set in its last batch": (
        [GOOD, *(json.dumps(LINE | {"number": n}) for n in (6, TOTAL))],
        f"unexpected record of question {TOTAL}",
    ),
    "a negative number": ([GOOD, json.dumps(LINE | {"number": -1})], "unexpected record of question -1"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_damaged_file_is_refused_in_one_line(path, what):
    lines, message = BAD[what]
    path.parent.mkdir()
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(RequestError) as error:
        open_log(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_io_errors_name_the_file(tmp_path, path):
    with pytest.raises(RequestError, match="Is a directory"):
        open_log(tmp_path)
    with open_log(path) as records:
        path.parent.write_text("")  # a file in place of the folder
        with pytest.raises(OutputError, match="folder: cannot write"):
            records.append(record(0))


def test_two_processes_do_not_mix_their_records(path):
    with open_log(path) as one, open_log(path) as other:
        one.append(record(0))
        with pytest.raises(OutputError, match="another process is writing these records"):
            other.append(record(0))
        one.append(record(1))
    assert path.read_bytes().count(b"\n") == 3
