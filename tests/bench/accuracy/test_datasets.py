"""Question sets from files, and by name from a local stand-in for the hub. No network."""

import sys

import pytest
from thirteen.bench.accuracy.datasets import PARSERS, Question, _rows, load_question_set
from thirteen.errors import FileError

from ...json_lines import write_rows
from ...refusals import refused


@pytest.fixture
def file(tmp_path):
    return lambda *rows: write_rows(tmp_path / "set.jsonl", rows)


def test_answers_are_parsed_from_many_forms(file):
    answers = ["72", "1,234", 5, 2.5, "$3.50", "75%", "1/3", "12 apples", "2 + 3 = 5.\n#### 5", "-4.0"]
    found = load_question_set(str(file(*({"question": f"{n}?", "answer": a} for n, a in enumerate(answers)))))
    expected = ["72", "1234", "5", "2.5", "3.5", "75", "1/3", "12", "5", "-4"]
    assert [question.answer for question in found.questions] == expected
    assert [question.text for question in found.questions] == [f"{n}?" for n in range(len(answers))]
    assert found.name == "set"


def test_a_bad_row_is_an_error_with_file_and_line(file):
    for rows, message in (
        ([], "holds no question"),
        ([{"question": "a", "answer": "yes"}], "line 1: 'answer' must be a number, not 'yes'"),
    ):
        path = file(*rows)
        with refused(path, message, FileError):
            load_question_set(str(path))


def test_an_unknown_set_is_an_error_that_lists_the_known_ones():
    for name, shown in (("nowhere", "nowhere"), ("", "''")):
        with pytest.raises(FileError, match=f"{shown}: no such file, and not one of the sets gsm8k, svamp"):
            load_question_set(name)


def test_a_subsample_is_evenly_spaced_and_has_another_hash(file):
    whole = load_question_set(str(file(*({"question": str(n), "answer": n} for n in range(10)))))
    assert [question.answer for question in whole.subsample(4).questions] == ["0", "2", "5", "7"]
    assert whole.subsample(None) == whole and whole.subsample(99).questions == whole.questions
    assert whole.subsample(4).sha256 != whole.sha256
    one = load_question_set(str(file({"question": "a", "answer": "1.0"}))).sha256
    assert load_question_set(str(file({"answer": 1, "more": 2, "question": "a"}))).sha256 == one


SVAMP = [
    {"Body": "Dan had $ 4", "Question": "What is left of it?", "Answer": "1.0"},
    {"Body": "He buys two.", "Question": "How many?", "Answer": 2},
]


def test_a_row_of_svamp_becomes_a_question():
    questions = [PARSERS["svamp"](row, "here") for row in SVAMP]
    assert questions == [
        Question("Dan had $ 4. What is left of it?", "1"),
        Question("He buys two. How many?", "2"),
    ]


@pytest.mark.slow
def test_rows_of_parquet_are_read(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="thirteen[data] is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "test.parquet"
    parquet.write_table(arrow.Table.from_pylist([{"question": "a?", "answer": "2 + 1 = 3\n#### 3"}]), path)
    ((where, row),) = _rows(path, "origin")
    assert PARSERS["gsm8k"](row, where) == Question("a?", "3")
    assert where == "origin: row 1"


def test_without_pyarrow_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)  # makes the import fail
    with pytest.raises(FileError, match=r"origin: reading Parquet needs pyarrow: .*`data`: .*\.\[data\]"):
        list(_rows(tmp_path / "test.parquet", "origin"))
