"""Reading passages from JSON lines, and tokenizing them as texts or chat turns."""

import json
import os

import pytest
from thirteen.errors import RequestError
from thirteen.files import json_lines
from thirteen.runtime.calibration.corpus import Passage, passage_tokens, read_passages
from thirteen.runtime.llama.model import Model
from thirteen.runtime.prompt.prompt_encoder import PromptEncoder
from thirteen.runtime.prompt.template_process import read_chat_template

from ...byte_level import byte_names

BOS, START, END = 256, 257, 258  # of the tiny model


@pytest.fixture
def file(tmp_path):
    def write(*lines):
        path = tmp_path / "calibration.jsonl"
        whole = (
            line
            if isinstance(line, bytes)
            else (line if isinstance(line, str) else json.dumps(line)).encode()
            for line in lines
        )
        path.write_bytes(b"\n".join(whole))
        return path

    return write


def tokens(path, passage):
    with Model(path) as model:
        encoder = PromptEncoder(model, read_chat_template(model.header, model.bos, model.eos))
        return passage_tokens(model, encoder, passage)


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
        '{"text": "\\ud800"}\r',
    )
    assert read_passages(path) == [
        Passage("One\u2028two"),
        Passage("2", "1 + 1?"),
        Passage("4", "2 + 2?"),
        Passage("both"),
        Passage("\ud800"),
    ]


BAD = {
    "an empty file": ([], "no passage has any text"),
    "blank texts only": ([{"text": " "}], "no passage has any text"),
    "not JSON": ([{"text": "a"}, "{"], "line 2: not JSON: "),
    "not an object": (["[1]"], "line 1: not a JSON object"),
    "another key": ([{"txt": "a"}], "line 1: has neither 'text' nor 'question'"),
    "a text that is a number": ([{"text": 1}], "line 1: 'text' is not a string"),
    "a text that is null": ([{"text": None}], "line 1: 'text' is not a string"),
    "a question without answer": ([{"question": "a"}], "line 1: 'answer' is missing"),
    "an answer that is a number": ([{"question": "a", "answer": 4}], "line 1: 'answer' is not a string"),
    "a solution that is a list": ([{"question": "a", "solution": []}], "line 1: 'solution' is not a string"),
    "a question that is a number": ([{"question": 1, "answer": "4"}], "line 1: 'question' is not a string"),
    "an empty question": ([{"question": " ", "answer": "4"}], "line 1: 'question' is empty"),
    "not UTF-8": (
        [{"text": "a"}, "", b'{"text": "\xff"}'],
        "line 3: not UTF-8: invalid start byte at byte 11",
    ),
    "nested without end": (["[" * 100_000], "line 1: not JSON: "),
    "a number without end": (['{"text": ' + "1" * 10_000 + "}"], "line 1: not JSON: "),
    "a line too long": ([{"text": "a" * (1 << 20)}], "line 1 has 1048588 bytes; at most 1048576 are read"),
}


@pytest.mark.parametrize("what", BAD)
def test_an_invalid_file_gives_a_one_line_error_with_its_name(file, what):
    lines, message = BAD[what]
    path = file(*lines)
    with pytest.raises(RequestError) as error:
        read_passages(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_too_large_or_missing_or_a_folder_is_rejected(file, tmp_path):
    large = file('{"text": "12345678"}')
    os.truncate(large, json_lines.MAX_BYTES + 1)
    with pytest.raises(RequestError, match=f"more than {json_lines.MAX_BYTES:,} bytes"):
        read_passages(large)
    for path, message in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(RequestError, match=message):
            read_passages(path)


def test_a_text_starts_with_the_begin_of_text_token(tiny):
    assert tokens(tiny, Passage("Hi <|im_end|>")) == [BOS, *byte_tokens("Hi <|im_end|>")]


def test_a_question_and_its_solution_become_a_chat_turn(tiny):
    turn = tokens(tiny, Passage("4", "2 + 2?<|im_end|>"))
    user, assistant = byte_tokens("user\n2 + 2?<|im_end|>"), byte_tokens("assistant\n")
    newline = byte_tokens("\n")
    assert turn == [BOS, START, *user, END, *newline, START, *assistant, *byte_tokens("4"), END]


def test_without_a_template_question_and_solution_become_a_text(write_tiny, tmp_path):
    path = write_tiny(tmp_path / "plain.gguf", {"tokenizer.chat_template": None})
    assert tokens(path, Passage("4", "2 + 2?")) == [BOS, *byte_tokens("2 + 2?\n4")]


def test_the_real_model_ends_a_turn_with_its_end_token(smollm2):
    with Model(smollm2) as model:
        encoder = PromptEncoder(model, read_chat_template(model.header, model.bos, model.eos))
        turn = passage_tokens(model, encoder, Passage("It is 4.", "What is 2 + 2?"))
        text = "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\nIt is 4.<|im_end|>"
        expected = model.tokenize(text, special=True, bos=False)
    assert turn[-len(expected) :] == expected
