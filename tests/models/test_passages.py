"""Reading passages from JSON lines, and tokenizing them as texts or chat turns."""

import pytest
from gguf import GGUFValueType
from thirteen.errors import FileError
from thirteen.models.passages import Passage, chunk_passages, read_passages, tokenize_passages
from thirteen.runtime.llama.model import Model

from ..byte_level import byte_names
from ..json_lines import write_rows
from ..refusals import refused

BOS, START, END = 256, 257, 258  # of the tiny model


@pytest.fixture
def file(tmp_path):
    return lambda *lines: write_rows(tmp_path / "calibration.jsonl", lines)


def tokens(path, passage):
    with Model(path) as model:
        (tokenized,) = tokenize_passages(model, [passage])
        return list(tokenized)


def byte_tokens(text):
    """Tokens of plain text in the tiny model: one per byte."""
    return [byte_names().index(character) for character in text.replace(" ", "Ġ").replace("\n", "Ċ")]


def test_all_kinds_of_lines_are_read_in_order(file):
    path = file(
        {"text": "One\u2028two"},
        "",
        {"question": "1 + 1?", "solution": "2", "answer": "#### 2"},
        " \r",
        {"question": "2 + 2?", "answer": "4", "id": 7},
        {"text": "both", "question": "?"},
        {"text": " \n"},
        '{"text": "\\ud83d\\ude00"}\r',
    )
    assert read_passages(path) == [
        Passage("One\u2028two"),
        Passage("2", "1 + 1?"),
        Passage("4", "2 + 2?"),
        Passage("both"),
        Passage("\U0001f600"),
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"text": " "}], "no passage has any text"),
        (['{"text": "\\ud800"}'], "line 1: has a lone surrogate"),
        ([{"text": "a"}, "{"], "line 2: not JSON: "),
        ([{"text": 1}], "line 1: 'text' is not a string"),
        ([{"question": " ", "answer": "4"}], "line 1: 'question' is empty"),
        ([{"text": "a" * (1 << 20)}], "line 1 has 1048588 bytes; at most 1048576 are read"),
    ],
    ids=range(6),
)
def test_an_invalid_file_gives_a_one_line_error_with_its_name(file, lines, message):
    path = file(*lines)
    with refused(path, message, FileError):
        read_passages(path)


def test_a_question_and_its_solution_become_a_chat_turn(tiny):
    turn = tokens(tiny, Passage("4", "2 + 2?<|im_end|>"))
    user, assistant = byte_tokens("user\n2 + 2?<|im_end|>"), byte_tokens("assistant\n")
    newline = byte_tokens("\n")
    assert turn == [BOS, START, *user, END, *newline, START, *assistant, *byte_tokens("4"), END]


def test_a_template_with_a_date_has_always_the_same(write_tiny, tmp_path):
    """Statistics, and so the files that were made by them, depended on the day, as with Llama 3.2."""
    dated = {"tokenizer.chat_template": ("{{ strftime_now('%d %b %Y') }}", GGUFValueType.STRING, None)}
    path = write_tiny(tmp_path / "dated.gguf", dated)
    assert tokens(path, Passage("4", "2 + 2?"))[1:-1] == byte_tokens("26 Jul 20244")


def test_without_a_template_question_and_solution_become_a_text(write_tiny, tmp_path):
    path = write_tiny(tmp_path / "plain.gguf", {"tokenizer.chat_template": None})
    assert tokens(path, Passage("4", "2 + 2?")) == [BOS, *byte_tokens("2 + 2?\n4")]


def test_chunks_cut_the_concatenated_passages(tiny):
    text = [BOS, *byte_tokens("abcd"), BOS, *byte_tokens("efghij")]
    with Model(tiny) as model:
        chunks = chunk_passages(model, [Passage("abcd"), Passage("efghij")], 4)
        assert chunk_passages(model, [Passage("ab")], 4) == [(BOS, *byte_tokens("ab"))]
    assert chunks == [(BOS, *text[start + 1 : start + 4]) for start in (0, 4, 8)]
