"""`thirteen vocabulary`: a list for convert, and bad input in one line."""

import json

import pytest
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.convert.vocabulary.tokenizer_tables import TokenizerTables
from thirteen.convert.vocabulary.vocabulary_list import VocabularyList, check_list
from thirteen.files.hashing import file_sha256

from ..commands import Commands
from ..json_lines import write_rows
from .test_json_keys import keys_of_value, recorded

pytestmark = pytest.mark.slow

TEXTS = [{"text": f"The thing {n} is in the tin."} for n in range(12)]
TEXTS += [{"question": f"What is the {n}?", "answer": f"the {n}"} for n in range(12)]


@pytest.fixture(scope="module")
def thirteen(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, Commands() as commands:
        patch.setenv("THIRTEEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield commands


@pytest.fixture
def texts(tmp_path):
    return write_rows(tmp_path / "texts.jsonl", TEXTS)


def test_a_list_is_written_and_described(thirteen, base, texts, tmp_path):
    output = tmp_path / "list.json"
    words = ("vocabulary", base("llama"), "--size", 264, "--texts", texts, "-o", output, "--threads", 1)
    done = thirteen(*words, "--json")
    assert done.status == 0, done.stderr
    report = json.loads(done.stdout)
    tables = TokenizerTables.from_fields(open_checkpoint(base("llama")).tokenizer, "a test")
    kept = VocabularyList.load(output)
    check_list(kept, tables)
    recorded("vocabulary", keys_of_value(report))
    assert (report["tokens"], report["of"]) == (264, 272)
    assert report["sha256"] == file_sha256(output)
    assert {tables.tokens[i] for i in kept.tokens} >= {"th", "the", "Ġthe"}, "the texts use them most"
    before = output.read_bytes()
    again = thirteen(*words, "--force")  # from the cache, as a table
    assert "264 of 272" in again.stdout
    assert output.read_bytes() == before


def refused(done: object, message: str) -> None:
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert message in done.stderr


def test_convert_chooses_the_same_tokens(thirteen, base, texts, tmp_path):
    output, model = tmp_path / "list.json", tmp_path / "model.gguf"
    options = ("--threads", 1)
    done = thirteen("vocabulary", base("llama"), "--size", 264, "--texts", texts, "-o", output, *options)
    assert done.status == 0, done.stderr
    options = ("--type", "F16", "--vocabulary-texts", texts, *options)
    done = thirteen("convert", base("llama"), "--vocabulary", 264, *options, "-o", model)
    assert done.status == 0, done.stderr
    names = open_checkpoint(base("llama")).tokenizer["tokenizer.ggml.tokens"].value
    kept = [names[i] for i in VocabularyList.load(output).tokens]
    assert open_checkpoint(model).tokenizer["tokenizer.ggml.tokens"].value == kept
    assert thirteen("ask", model, "Is it the thing?", "--max-tokens", 2).status == 0


def test_sizes_and_texts_that_cannot_be_are_refused(thirteen, base, texts, tmp_path):
    command = ("convert", base("llama"), "-o", tmp_path / "m.gguf", "--vocabulary-texts", texts)
    for given in ((), ("--vocabulary", tmp_path / "l.json")):
        refused(thirteen(*command, *given), "--vocabulary-texts: requires --vocabulary with a number")
    refused(thirteen(*command, "--vocabulary", 12), "of 12 tokens: 261 must stay")
    command = ("vocabulary", base("llama"), "--size", 49152, "-o", tmp_path / "list.json")
    refused(thirteen(*command), "a vocabulary of 49152 tokens: the base has only 272")
    assert [*tmp_path.iterdir()] == [texts]
