"""The command line: imports, help, output, and the path from a checkpoint to an answer."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from thirteen.cli.console import printable
from thirteen.cli.main import app
from thirteen.models.embedded import limits
from thirteen.runtime.engine_options import PROFILES

from ..runtime.conftest import typed, write_gguf

HEAVY = ("torch", "transformers", "peft", "llama_cpp.llama_cpp", "numpy", "huggingface_hub")
SHORT = ("--max-tokens", "8", "--threads", "1")


def command_lines(group: object, *words: str) -> Iterator[str]:
    """The words of all commands and groups in a group."""
    for name, command in getattr(group, "commands", {}).items():
        yield " ".join((*words, name))
        yield from command_lines(command, *words, name)


@pytest.mark.parametrize("words", ["--help", "convert --help", "--version"])
def test_heavy_modules_are_imported_late(words):
    script = f"""
import atexit, sys
atexit.register(lambda: print([name for name in {HEAVY} if name in sys.modules]))
sys.argv = ["thirteen", *"{words}".split()]
from thirteen.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("words", [*command_lines(typer.main.get_command(app))])
def test_the_help_of_every_command_has_an_example_and_a_first_screen(words, thirteen):
    """The screen has 80 columns and 40 lines; what few need comes after it."""
    text = thirteen(*words.split(), "--help").output
    assert f"Usage: thirteen {words}" in text
    assert f"Example: thirteen {words}" in " ".join(text.split())
    first = text.partition("Advanced:")[0].partition("Example:")[0]
    assert len(first.splitlines()) <= 40 and max(map(len, first.splitlines())) <= 80


@pytest.mark.parametrize("group", ["", "bench"])
def test_a_group_alone_shows_its_help(group, thirteen):
    """It was one line of error, in which the help was squashed."""
    assert thirteen(*group.split()).output == thirteen(*group.split(), "--help").output


def test_version_shows_the_version(thirteen):
    name, version = thirteen("--version").output.split()
    assert name == "thirteen" and version[0].isdigit()


def test_a_converted_checkpoint_can_be_inspected_and_asked(
    thirteen, base, my_lora, tmp_path, monkeypatch, capsys
):
    model = tmp_path / "model.gguf"
    convert = ("convert", base("llama"), "--adapter", my_lora, "--no-fidelity", "--type", "Q8_0", "-o", model)
    made = thirteen(*convert, "--json").json
    assert (made["output"], made["file_bytes"]) == (str(model), model.stat().st_size)
    assert made["adapter"]["id"] == "my-lora"

    found = thirteen("models", model, "--json").json
    assert found["file_bytes"] == made["file_bytes"]
    assert {name: share["tensors"] for name, share in found["types"].items()} == made["types"]
    assert found["provenance"]["adapter.sha256"] == made["adapter"]["sha256"]
    assert found["memory"].keys() == PROFILES.keys()
    # With THIRTEEN_LIBRARY=ik, every file was an error: that of the phone's type of the KV cache.
    monkeypatch.setenv("THIRTEEN_LIBRARY", "ik")
    app(["models", str(model), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == found
    table = thirteen("models", model).output
    assert "Q8_0" in table
    assert "my-lora" in table

    answer = thirteen("ask", model, "What is 6 times 7?", *SHORT, "--json").json
    assert answer["usage"]["completion_tokens"] <= 8
    assert answer["model"] == str(model)
    printed = thirteen("ask", model, "What is 6 times 7?", *SHORT).output
    assert printed == f"{printable(answer['text'])}\n\nanswer: none, it was cut off\n"


def test_an_adapter_is_shown_as_a_table_or_json(thirteen, my_lora):
    shown = thirteen("adapter", my_lora, "--json").json
    assert (shown["adapter"], shown["kind"], shown["rank"]) == ("my-lora", "lora", 2)
    assert shown["trained_numbers"] == 2 * 2 * (64 + 96) * 2
    assert "my-lora" in thirteen("adapter", my_lora).output


@pytest.mark.parametrize("dash", [(), ("-",)])
def test_the_question_can_be_read_from_standard_input(dash, thirteen, tiny):
    given = thirteen("ask", tiny, *dash, *SHORT, "--json", stdin="Wie viel? é🙂\n".encode()).json
    typed = thirteen("ask", tiny, "Wie viel? é🙂\n", *SHORT, "--json").json
    assert (given["text"], given["usage"]) == (typed["text"], typed["usage"])


def test_several_lines_of_standard_input_are_refused_and_as_one_question_taken(thirteen, tiny):
    """Two questions got one answer."""
    error = thirteen("ask", tiny, *SHORT, stdin=b"Why?\n\nHow?\n").error
    assert "standard input has 2 lines: `thirteen batch FILE`" in error
    assert f"`thirteen ask {tiny} -` takes all" in error
    assert thirteen("ask", tiny, "-", *SHORT, stdin=b"Why?\n\nHow?\n").status == 0


def test_a_folder_that_is_no_model_is_told_what_one_has(thirteen, tmp_path, tiny):
    """Its name was a question."""
    (tmp_path / "a.gguf").symlink_to(tiny)
    for words in ((tmp_path, "Why?"), (tmp_path, "-")):
        error = thirteen("ask", *words, stdin=b"Why?").error
        assert error.startswith(f"error: {tmp_path}: a model's folder has config.json")
        assert f"a GGUF is named itself: {tmp_path}/a.gguf" in error
    assert "the question is missing" in thirteen("ask", tmp_path).stderr


@pytest.mark.parametrize("name", ["llama-3.2-1b", "embedded", "owner/name", "model.gguf", ""])
def test_a_model_without_a_question_is_an_error(name, thirteen):
    """The name was the question, which the embedded model answered."""
    error = thirteen("ask", *name.split()).error
    assert error == f"error: {f'ask {name}'.rstrip()}: the question is missing\n"


@pytest.mark.exhaustive  # the embedded model is converted
def test_the_limits_of_the_embedded_model_stand_on_a_line_of_their_own(thirteen):
    """They were appended to the last line of the answer."""
    done = thirteen("ask", "What is the capital of France?", "--max-tokens", 8)
    assert done.status == 0 and done.stderr.splitlines()[-1] == limits()


def test_printed_answers_have_no_control_characters(thirteen, tiny):
    """A random model generates every byte sooner or later."""
    words = ("ask", tiny, "Why?", "--temperature", "1000", "--max-tokens", "60", "--threads", "1")
    raw = thirteen(*words, "--json").json["text"]
    shown = thirteen(*words).output
    assert [text.replace("\n", "").replace("\t", "").isprintable() for text in (raw, shown)] == [False, True]


def test_metadata_is_shown_verbatim_without_control_characters(thirteen, tmp_path):
    """To rich, square brackets are markup; to a terminal, escape codes are commands."""
    keys = {"general.name": typed("\x1b[2J[red]x[/bold]"), "thirteen.note": typed("[/]\x07")}
    model = write_gguf(tmp_path / "[bold]model.gguf", keys, {})
    table = thirteen("models", model).output
    assert "[2J[red]x[/bold] (llama)" in table
    assert "[bold]model.gguf" in table
    assert table.replace("\n", "").isprintable()
    assert thirteen("models", model, "--json").json["name"] == keys["general.name"][0]


def test_the_catalogue_and_the_cache_are_listed(thirteen):
    listed = thirteen("models").output
    assert re.search(r"^\* +qwen2.5-1.5b .* 73 %", listed, re.MULTILINE), "it fits in 3 GB"
    assert "llama-3.2-1b" in listed and "no converted models in the cache" in listed


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("models {} | true", "0"),
        pytest.param("ask {} Why? --max-tokens 4 | true", "0", marks=pytest.mark.exhaustive),
        pytest.param("convert --help | true", "0", marks=pytest.mark.exhaustive),
        ("models nosuch.gguf 2>/dev/full", "2"),
    ],
)
def test_the_status_tells_what_happened_though_nothing_can_be_written(words, status, tiny):
    """Typer gives a closed pipe the status 1."""
    command = f"PYTHONUNBUFFERED=1 {sys.executable} -m thirteen {words.format(tiny)}; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (status, "")


def test_a_closed_standard_error_does_not_end_the_work(tmp_path):
    """Progress lines met a pipe without a reader, and the command ended before its work was done."""
    code = "from thirteen.cli.console import note; [note('x' * 9_000) for _ in range(50)]; open('done', 'w')"
    command = f'{sys.executable} -c "{code}" 2>&1 >/dev/null | true; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
    assert (tmp_path / "done").exists()


def test_an_answer_and_its_statistics_are_lines_of_their_own_in_one_pipe(tiny):
    """Standard output was still in its buffer when standard error was written."""
    command = [sys.executable, "-m", "thirteen", "ask", tiny, "What is 1 + 1?", *SHORT, "--effort", "medium"]
    lines = subprocess.check_output(command, stderr=subprocess.STDOUT, text=True).splitlines()
    value, *statistics = lines[next(n for n, line in enumerate(lines) if line.startswith("answer: ")) :]
    assert re.fullmatch(r"answer: (\d+|none, it was cut off)", value)
    assert re.match("64 tokens at ", statistics[-1])
