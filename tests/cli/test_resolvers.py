"""BASE, ADAPTER and MODEL take the same forms in every command: each goes through the one resolver."""

import shlex
from pathlib import Path

import pytest
from thirteen.cli.main import app
from thirteen.errors import FileError, OutputError, RequestError, ThirteenError
from thirteen.files.progress import Run
from thirteen.models import base, resolve

from ..json_lines import write_rows
from ..runtime.conftest import write_gguf

NAME = "some/name"
ON_FIRST_USE = (  # a MODEL that is converted with --threads
    *("ask X Why?", "chat X", "batch ROWS X --out OUT", "serve X", "mcp X", "bench X", "bench X --peers"),
    *(
        "learn X MANY --output OUT",
        "bench accuracy X --data ROWS",
        "bench accuracy FILE --base X --data ROWS",
    ),
    *("bench latency FILE X", "bench X --quick", "bench fidelity X FILE", "bench fidelity FILE X"),
)
BASE = (
    *("models X", "web X --out OUT", "bench tune X"),
    *("convert X --output OUT", "convert X --size 4bpw --dry-run"),
    "convert X --adapter ADAPTER --to-safetensors --output OUT",
    "train X --data MANY --output OUT --held-out 1",
    *("adapter ADAPTER --base X --output OUT.gguf", "adapter ADAPTER --base X --code"),
)
ADAPTER = (
    *("convert FILE --output OUT --adapter X", "convert FILE --size 4bpw --adapter X --dry-run"),
    *("convert FILE --output OUT --adapter X --to-safetensors", "adapter X"),
    *("adapter X --base FILE --output OUT.gguf", "adapter X --output OUT", "adapter X --code"),
    *("ask FILE Why? --adapter X", "chat FILE --adapter X", "batch ROWS FILE --out OUT --adapter X"),
    *("serve FILE --adapter name=X", "mcp FILE --adapter X", "bench FILE --adapter X"),
    *("bench accuracy FILE --data ROWS --adapter X", "bench fidelity FILE FILE --adapter X"),
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(line, name): run a command; the resolvers raise RequestError when they are given NAME."""
    places = {name: tmp_path / name.lower() for name in ("OUT", "ROWS", "MANY", "FILE", "FULL", "ADAPTER")}
    write_gguf(places["FILE"], {}, {})
    places["ADAPTER"].mkdir()
    words = [chr(97 + n % 26) * (1 + n // 26) for n in range(40)]
    rows = [{"question": f"Buy {word} apples?", "solution": "1 + 1 = 2", "answer": 2} for word in words]
    write_rows(places["ROWS"], rows[:2])
    write_rows(places["MANY"], rows)
    real = base.local_path

    def local_path(source: str) -> Path | None:
        if source == NAME:
            raise RequestError(f"{NAME} is resolved")
        return real(source)

    for module in (base, resolve):
        monkeypatch.setattr(module, "local_path", local_path)

    def run(line: str, name: str) -> None:
        words = [str(places.get(word, word)).replace("X", name) for word in shlex.split(line)]
        app(words, standalone_mode=False)

    return run


@pytest.mark.parametrize("line", ON_FIRST_USE + BASE + ADAPTER)
def test_a_name_is_resolved_by_every_command(line, run):
    """One command downloaded the checkpoint and failed to load the folder; `accuracy` took a file only."""
    with pytest.raises(RequestError, match="some/name is resolved"):
        run(line, NAME)


@pytest.mark.parametrize("line", ADAPTER)
def test_a_code_is_decoded_by_every_command(line, run):
    with pytest.raises(FileError, match="'t13:' is not a code"):
        run(line, "t13:")


@pytest.mark.parametrize("line", ON_FIRST_USE)
def test_a_first_use_converts_with_the_threads_of_the_command(line, run, monkeypatch):
    """It computed with all of the machine's, whatever --threads said."""

    def converted_model(base: str, folder: Path | None, run: Run, announce: object) -> Path:
        raise RequestError(f"with {run.threads} threads")

    monkeypatch.setattr(resolve, "local_path", lambda source: None if source == NAME else Path(source))
    monkeypatch.setattr(resolve, "converted_model", converted_model)
    with pytest.raises(RequestError, match="with 3 threads"):
        run(f"{line} --threads 3", NAME)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("web X --out FULL", OutputError),
        ("convert X --adapter ADAPTER --to-safetensors --output FULL", OutputError),
        ("convert X --output FULL", OutputError),
        ("adapter ADAPTER --base X --output FULL", OutputError),
        ("batch ROWS X --out FULL", OutputError),
        ("batch ROWS X --out ROWS", OutputError),
        ("bench fidelity X FILE --base X", RequestError),
        ("bench fidelity X FILE --data FULL/none", FileNotFoundError),
    ],
)
def test_what_is_wrong_is_refused_before_a_model_is_resolved(line, error, run, tmp_path):
    """It was after a download and a conversion."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(error) as refused:
        run(line, NAME)
    assert "is resolved" not in str(refused.value)


def test_an_empty_name_is_not_a_missing_option(run):
    """Of an unset variable of a shell; the model answered without the adapter."""
    for option in ("ask FILE Why? --adapter X", "bench accuracy FILE --data ROWS --base X"):
        with pytest.raises(ThirteenError, match="'': no such file or folder"):
            run(option, "")
