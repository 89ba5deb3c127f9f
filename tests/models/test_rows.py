"""Training rows: what is refused, forms of answers, and splits that keep questions apart."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from thirteen.errors import FileError, RequestError
from thirteen.models.rows import TrainingRow, read_rows, same_answer, split_rows


def write(path: Path, **row: object) -> Path:
    path.write_text(json.dumps({"question": "How many?", "solution": "7", "answer": "7"} | row))
    return path


@pytest.mark.parametrize("answer", ["yes", "7 or 8", "#### none", "inf", "1/0"])
def test_an_answer_that_is_to_be_scored_is_a_number(tmp_path, answer):
    """Otherwise every solution is wrong, or every one without a number right."""
    path = write(tmp_path / "rows", answer=answer)
    with pytest.raises(FileError, match=r"rows: line 1: 'answer' must be a number, not "):
        read_rows(path, ("answer",))
    read_rows(path)  # a text to learn may end in anything


GSM8K = "She sold 48/2 = <<48/2=24>>24 clips.\n#### "  # of its answers, what follows the last mark counts


@pytest.mark.parametrize("before", ["", GSM8K])
@pytest.mark.parametrize("answer", ["1,234", "-$3.50", "1/2", 72, 0.5, "75%"])
def test_numbers_stay_as_they_are_written(tmp_path, before, answer):
    path = write(tmp_path / "rows", answer=f"{before}{answer}" if before else answer)
    assert read_rows(path, ("answer",))[0].answer == str(answer)


@pytest.mark.parametrize("field", ["question", "solution", "answer"])
def test_a_lone_surrogate_is_refused(tmp_path, field):
    """It raised UnicodeEncodeError or TypeError where the text was tokenized or sent."""
    with pytest.raises(FileError, match="rows: line 1: has a lone surrogate"):
        read_rows(write(tmp_path / "rows", **{field: "7 \ud83d"}))
    read_rows(write(tmp_path / "rows", **{field: "7 \U0001f600"}))


def test_a_question_is_never_in_both_parts():
    rows = [TrainingRow(f"question {n % 20}", f"solution {n}") for n in range(60)]
    rest, held = split_rows(rows, 8, seed=1)
    assert len(held) == 8 and len(rest) > 20
    assert not {row.question for row in rest} & {row.question for row in held}


def test_rows_that_differ_are_split_as_ever():
    """A search or a training run of an earlier version resumes with the same rows."""
    rows = [TrainingRow(f"question {n}", "") for n in range(60)]
    shuffled = random.Random(3).sample(rows, 60)
    assert split_rows(rows, 8, seed=3) == (shuffled[8:], shuffled[:8])


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (6, "held_out 6: must be at least 1 and less than the 6 rows"),
        (5, "held_out 5: leaves no other question of the 6 rows"),
    ],
)
def test_a_part_of_a_split_is_never_empty(held_out, message):
    rows = [TrainingRow(f"question {n % 2}", f"solution {n}") for n in range(6)]
    with pytest.raises(RequestError, match=message):
        split_rows(rows, held_out, seed=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\n\n", "contains no rows"),
        (b'{"question": "q", "solution": "s"}\n{"question": "q"}', "line 2: 'solution' must be"),
        (b'{"question": "q", "solution": "s", "answer": NaN}', "line 1: 'answer' must be"),
        (b"[" * 100_000, "line 1: not JSON"),
        (b"[1]", "line 1: not a JSON object"),
        (b"\xff\xfe", "line 1: not UTF-8"),
    ],
)
def test_the_error_of_a_bad_row_names_file_and_line(tmp_path, text, message):
    (path := tmp_path / "rows.jsonl").write_bytes(text)
    with pytest.raises(FileError, match=f"^{path}: {message}"):
        read_rows(path)


def test_numbers_of_a_table_and_a_byte_order_mark_are_read(tmp_path):
    """pandas writes 18.0 where another answer is missing, and null for that one."""
    (path := tmp_path / "rows.jsonl").write_bytes(
        b'\xef\xbb\xbf{"question": "q", "solution": "s", "answer": 18.0}\n'
        b'{"question": "r", "solution": "s", "answer": null}'
    )
    assert [row.answer for row in read_rows(path)] == ["18", ""]


SAME = {  # a row's form and answer -> texts that state it
    ("text", "12.5 km"): (
        "12.5 km",
        "`12.5 km`",
        "It is 12.54 km, rounded:\nAnswer: **12.5 km**",
        "  12.5\u00a0KM. ",
        "First.\n\nThe answer is 12.5 km.",
    ),
    ("json", '{"a": "x", "b": [1, 2]}'): (
        '{"b": [1, 2.0], "a": "x"}',
        'Here:\n```json\n{"a": "x", "b": [1, 2]}\n```\nThat is it.',
        '\n{"a": "x", "b": [1, 2]}\n```',  # after an answer that begins with a fence
    ),
}
OTHERS = (
    *("12.50 km", "About 12.5 km", '{"a": "X", "b": [1, 2]}', '{"a": "x", "b": [true, 2]}'),
    *('{"a": "x", "b": [1, 2]} as asked', "[" * 100_000, ""),
)


@pytest.mark.parametrize(("form", "expected"), SAME)
def test_texts_are_compared_after_normalization_and_json_by_value(form, expected):
    row, texts = TrainingRow("?", "", expected, form), SAME[form, expected]
    found = {text: same_answer(SimpleNamespace(text=text, value=None), row) for text in (*texts, *OTHERS)}
    assert found == dict.fromkeys(texts, True) | dict.fromkeys(OTHERS, False)


@pytest.mark.parametrize(
    ("rows", "form"),
    [
        ([{"answer": "2.5"}, {"answer": 7}], "number"),
        ([{"answer": "red"}, {"answer": "12 by 3"}], "text"),
        ([{"answer": {"a": 1}}, {"answer": "[1, 2]"}], "json"),
        ([{"answer": "2.5 km", "answer_type": "text"}, {"answer": "7", "answer_type": "text"}], "text"),
    ],
)
def test_the_form_is_named_or_recognized(tmp_path, rows, form):
    assert {row.form for row in read_forms(tmp_path, rows)} == {form}


def read_forms(folder, rows):
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
        read_forms(tmp_path, rows)
