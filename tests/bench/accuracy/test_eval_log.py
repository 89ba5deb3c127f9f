"""Records survive whatever breaks a run off, and never mix with those of another."""

import json

import pytest
from thirteen.bench.accuracy.eval_log import EvalLog, Outcome, QuestionRecord, Sample
from thirteen.errors import OutputError, RequestError

TOTAL, WAVE = 8, 3
RUN = {"model_sha256": "ab" * 32, "adapter_sha256": None, "temperature": 0.7, "prompt": "zero-shot"}


def record(number):
    samples = tuple(Sample(str(vote), Outcome.CORRECT, True, 5, "It is\n\u2028½") for vote in range(2))
    return QuestionRecord(number, "3", "1", Outcome.WRONG, samples)


def failed(number):
    return QuestionRecord(number, "3", None, Outcome.ERROR, (), "too long")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "run.jsonl"


def opened(path, run=RUN):
    return EvalLog(path, run, TOTAL, WAVE)


def written(path, numbers):
    with opened(path) as records:
        for number in numbers:
            records.append(record(number))
    return path.read_bytes()


def test_a_record_is_on_the_disk_as_soon_as_it_is_appended(path):
    with opened(path) as records:
        assert not path.exists() and not path.parent.exists()  # nothing is written before there is something
        records.append(record(1))
        header, line = path.read_bytes().splitlines()
        assert json.loads(header) == {"format": 1, "sitting": RUN}
        assert json.loads(line)["number"] == 1


def test_records_come_back_as_they_were_in_the_order_of_the_questions(path):
    numbers = [2, 0, 1, 5, 4, 3, 7, 6]
    with opened(path) as records:
        for number in numbers:
            records.append(record(number) if number != 4 else failed(number))
    with opened(path) as again:
        assert len(again) == TOTAL
        assert list(again) == [record(n) if n != 4 else failed(n) for n in range(TOTAL)]


@pytest.mark.parametrize(("count", "kept"), [(0, 0), (2, 0), (3, 3), (5, 3), (6, 6), (7, 6), (8, 8)])
def test_a_wave_that_was_broken_off_is_dropped_and_the_rest_stays(path, count, kept):
    whole = written(path, range(TOTAL))
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[: 1 + count]))
    with opened(path) as records:
        assert len(records) == kept
        for number in range(kept, TOTAL):
            records.append(record(number))
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("numbers", "kept"),
    [((3, 4, 5, 0, 1), 3), ((6, 7, 2, 1, 0, 3), 5), ((6, 3, 7, 4, 5, 0), 5), ((0, 3), 0), ((7, 6), 2)],
)
def test_waves_may_come_in_any_order_and_only_whole_ones_stay(path, numbers, kept):
    written(path, numbers)
    with opened(path) as records:
        assert len(records) == kept
        assert {number for number in range(TOTAL) if number in records} == set(numbers[:kept])
        for number in set(range(TOTAL)) - set(numbers[:kept]):
            records.append(record(number))
    with opened(path) as again:
        assert [found.number for found in again] == list(range(TOTAL))


def test_a_file_torn_at_any_byte_is_gone_on_with(path):
    """Also within the first line, and within a character."""
    whole = written(path, range(TOTAL))
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with opened(path) as records:
            assert len(records) == (whole[:length].count(b"\n") - 1) // WAVE * WAVE or length < len(whole) / 3
            for number in range(len(records), TOTAL):
                records.append(record(number))
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": "8-shot"}, "prompt is 'zero-shot' there and '8-shot' here"),
        ({"temperature": 0.0}, "temperature is 0.7 there and 0.0 here"),
        ({"adapter_sha256": "cd"}, "adapter_sha256 is None there and 'cd' here"),
        ({"new": 1}, "new is None there and 1 here"),
    ],
)
def test_the_records_of_another_sitting_are_refused_and_left_alone(path, change, says):
    whole = written(path, range(5))
    with pytest.raises(RequestError, match=says) as error:
        opened(path, RUN | change)
    assert str(error.value).startswith(str(path))
    assert path.read_bytes() == whole


GOOD = json.dumps({"format": 1, "sitting": RUN})
LINE = {"number": 0, "expected": "1", "value": None, "outcome": "error", "samples": [], "error": "no"}
BAD = {
    "no header": (["{}"], "not a file of records"),
    "no JSON": (["question,answer"], "not a file of records"),
    "nested without end": (["[" * 100_000], "not a file of records"),
    "a later format": ([json.dumps({"format": 2, "sitting": RUN})], "records of format 2, not 1"),
    "a line of something else": ([GOOD, "{}"], "line 2: not a record"),
    "a torn line within": ([GOOD, json.dumps(LINE), '{"number": 1'], "line 3: not a record"),
    "an unknown outcome": ([GOOD, json.dumps(LINE | {"outcome": "lucky"})], "line 2: not a record"),
    "a field too many": ([GOOD, json.dumps(LINE | {"more": 1})], "line 2: not a record"),
    "a number that is none": ([GOOD, json.dumps(LINE | {"number": "0"})], "its number is '0'"),
    "a question twice": ([GOOD, *[json.dumps(LINE)] * 3], "a record of question 0 is one too many"),
    "no question of the set": (
        [GOOD, *(json.dumps(LINE | {"number": n}) for n in (0, 1, TOTAL + 1))],
        f"a record of question {TOTAL + 1} is one too many",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_damaged_file_is_one_line_that_names_it(path, what):
    lines, says = BAD[what]
    path.parent.mkdir()
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(RequestError) as error:
        opened(path)
    assert str(error.value).startswith(str(path))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_what_cannot_be_read_or_written_is_one_line(tmp_path, path):
    with pytest.raises(RequestError, match="Is a directory"):
        opened(tmp_path)
    with opened(path) as records:
        path.parent.write_text("")  # a file where its folder is to be
        with pytest.raises(OutputError, match=r"run\.jsonl: "):
            records.append(record(0))


def test_two_at_once_do_not_mix_their_records(path):
    with opened(path) as one, opened(path) as other:
        one.append(record(0))
        with pytest.raises(OutputError, match="another process is writing these records"):
            other.append(record(0))
        one.append(record(1))
    assert path.read_bytes().count(b"\n") == 3
