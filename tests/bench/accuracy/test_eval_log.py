"""Logs survive interruptions, and never mix with those of another run."""

import json

import pytest
from thirteen.bench.accuracy.scores import LOGGED_RUN, Outcome, QuestionRecord, Sample
from thirteen.errors import FileError
from thirteen.files.from_json import RecordJournal

from ...refusals import refused

TOTAL = 8
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
    return RecordJournal(path, run, LOGGED_RUN, QuestionRecord, TOTAL)


def test_an_appended_record_is_on_disk_at_once(path):
    with open_log(path) as records:
        assert not path.exists() and not path.parent.exists()  # no file without a record
        records.add(record(1))
        header, line = path.read_bytes().splitlines()
        assert json.loads(header) == {"format": 1, "sitting": RUN}
        assert json.loads(line)["number"] == 1


def test_records_are_read_back_by_the_numbers_of_the_questions(path):
    numbers = [2, 0, 1, 5, 4, 3, 7, 6]
    with open_log(path) as records:
        for number in numbers:
            records.add(record(number) if number != 4 else failed(number))
    with open_log(path) as again:
        assert again.records == {n: record(n) if n != 4 else failed(n) for n in range(TOTAL)}


GOOD = json.dumps({"format": 1, "sitting": RUN})
SAMPLE = {"value": None, "outcome": "unparsed", "verified": False, "tokens": 5, "text": "?"}
LINE = {"number": 0, "expected": "1", "value": None, "outcome": "error", "samples": [], "error": "no"}
BAD = {
    "a line of something else": ([GOOD, "{}"], "line 2: number is missing"),
    "an unknown outcome": (
        [GOOD, json.dumps(LINE | {"outcome": "lucky"})],
        "line 2: outcome: 'lucky' should be",
    ),
    "no tokens": (
        [GOOD, json.dumps(LINE | {"samples": [SAMPLE | {"tokens": 0}]})],
        "line 2: samples[0]: tokens: 0 should be greater than or equal to 1",
    ),
    "a question twice": ([GOOD, *[json.dumps(LINE)] * 3], "unexpected record of question 0"),
    "no question of the set": (
        [GOOD, *(json.dumps(LINE | {"number": n}) for n in (0, 1, TOTAL + 1))],
        f"unexpected record of question {TOTAL + 1}",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_damaged_file_is_refused_in_one_line(path, what):
    lines, message = BAD[what]
    path.parent.mkdir()
    path.write_text("".join(f"{line}\n" for line in lines))
    with refused(path, message, FileError):
        open_log(path)
