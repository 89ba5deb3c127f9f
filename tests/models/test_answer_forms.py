"""Answers that are numbers, texts or JSON values: recognized, and compared."""

import json
from types import SimpleNamespace

import pytest
from thirteen.errors import FileError
from thirteen.models.answer_forms import same_answer
from thirteen.models.rows import TrainingRow, read_rows


def is_same(form, text, expected):
    return same_answer(SimpleNamespace(text=text, value=None), TrainingRow("?", "", expected, form))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("12.5 km", True),
        ("`12.5 km`", True),
        ("It is 12.54 km, rounded:\nAnswer: **12.5 km**", True),
        ("  12.5\u00a0KM. ", True),
        ("12.50 km", False),
        ("About 12.5 km", False),
        ("", False),
    ],
)
def test_texts_are_compared_after_normalization(text, same):
    assert is_same("text", text, "12.5 km") == same


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('{"b": [1, 2.0], "a": "x"}', True),
        ('Here:\n```json\n{"a": "x", "b": [1, 2]}\n```\nThat is it.', True),
        ('\n{"a": "x", "b": [1, 2]}\n```', True),  # after an answer that begins with a fence
        ('{"a": "x", "b": [true, 2]}', False),
        ('{"a": "x", "b": [1, 2]} as asked', False),
        ("[" * 100_000, False),
        ("", False),
    ],
)
def test_json_is_compared_by_value(text, same):
    assert is_same("json", text, '{"a": "x", "b": [1, 2]}') == same


@pytest.mark.parametrize(
    ("rows", "form"),
    [
        ([{"answer": "2.5"}, {"answer": 7}], "number"),
        ([{"answer": "red"}, {"answer": "12 by 3"}], "text"),
        ([{"answer": {"a": 1}}, {"answer": "[1, 2]"}], "json"),
        ([{"answer": "2.5 km", "answer_type": "text"}, {"answer": "7", "answer_type": "text"}], "text"),
        ([{"answer": True, "answer_type": "json"}], "json"),
        ([{"answer": "red", "answer_type": None}], "text"),
    ],
)
def test_the_form_is_named_or_recognized(tmp_path, rows, form):
    assert {row.form for row in read(tmp_path, rows)} == {form}


def read(folder, rows):
    lines = [json.dumps({"question": "?"} | row) for row in rows]
    (path := folder / "rows.jsonl").write_text("\n".join(lines))
    return read_rows(path, ("answer",), any_form=True)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"answer": 7}, {"answer": "red"}],
            "line 2: the answer is of the form text, and number before: give",
        ),
        (
            [{"answer": 7, "answer_type": "date"}],
            "line 1: 'answer_type' must be number, text, json, not 'date'",
        ),
        ([{"answer": "red", "answer_type": "number"}], "line 1: 'answer' must be a number, not 'red'"),
        ([{"answer": "{", "answer_type": "json"}], "line 1: 'answer': not JSON"),
    ],
)
def test_what_cannot_be_decided_is_one_line(tmp_path, rows, message):
    with pytest.raises(FileError, match=message):
        read(tmp_path, rows)
