"""Models in all forms: from a stand-in hub or a folder to an answer, at once the second time, and removed."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gguf
import pytest
from thirteen import Engine
from thirteen.errors import FileError, RequestError
from thirteen.files.gguf.header import read_header
from thirteen.files.progress import Run
from thirteen.files.trusted_files import file_stamp
from thirteen.models import resolve as resolve_module
from thirteen.models.catalogue import catalogue
from thirteen.models.conversion import Conversion, ConversionRequest
from thirteen.models.resolve import (
    ModelFiles,
    cached_models,
    converted_model,
    is_model_name,
    remove_model,
    resolve,
)

from ..runtime.conftest import write_gguf
from .hub_server import Repository, hub_environment, serve

COMMIT = "0" * 39 + "1"


def run_thirteen(home: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = hub_environment(url, home / "hub") | {"THIRTEEN_CACHE": str(home / "cache")}
    command = [sys.executable, "-m", "thirteen", *words, "--threads", "1"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the test's own; yields its folder of models."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache/models").mkdir(parents=True)
    return tmp_path / "cache/models"


@pytest.fixture
def quick(monkeypatch):
    """Converts to a type, without the measurements that a size needs."""

    def resolve(request: ConversionRequest, run: Run) -> Conversion:
        return whole(replace(request, size=None, type="Q8_0"), run)

    whole = ConversionRequest.resolve
    monkeypatch.setattr(ConversionRequest, "resolve", resolve)


def test_a_name_that_pins_another_commit_is_converted_again(cache, monkeypatch):
    """Its old file was used for ever; the hub is asked for the whole commit, which the catalogue has."""
    requests: list[str] = []

    def resolve(request: ConversionRequest, run: Run) -> Conversion:
        requests.append(request.base)
        raise FileError("not here")

    monkeypatch.setattr(ConversionRequest, "resolve", resolve)
    entry = catalogue().base("llama-3.2-1b")
    (kept := cache / f"llama-3.2-1b@{entry.revision[:8]}-{entry.size}.gguf").touch()
    assert converted_model("llama-3.2-1b", None, Run(), pytest.fail) == kept
    kept.rename(cache / f"llama-3.2-1b@00000000-{entry.size}.gguf")
    with pytest.raises(FileError, match="not here"):
        converted_model("llama-3.2-1b", None, Run(), lambda line: None)
    assert requests == ["llama-3.2-1b"]


def converted(folder: Path, name: str) -> Path:
    """A small model in the cache, as converted from `owner/name`."""
    keys = {"thirteen.base.id": (f"owner/{name}", gguf.GGUFValueType.STRING, None)}
    return write_gguf(folder / f"owner--{name}-4.5bpw.gguf", keys, {})


def test_an_engine_takes_what_the_command_line_takes(base, cache, quick, caplog):
    """`embedded` was no file."""
    for name in (str(base("llama")), str(write_gguf(cache / "a.gguf", {}, {}))):
        with Engine(name, threads=1) as engine:
            assert engine.answer("1 + 1?", max_tokens=4).usage.completion_tokens <= 4
    (told,) = caplog.messages
    assert "a conversion to 4.5bpw" in told
    with pytest.raises(FileError, match="no base 'embeded': did you mean embedded"):
        Engine("embeded")


@pytest.mark.exhaustive  # downloads, plans and converts, in a minute
def test_a_hub_id_is_a_model_and_the_second_time_needs_no_hub(base, tmp_path):
    files = {path.name: path.read_bytes() for path in base("llama wide").iterdir() if path.is_file()}
    words = ("ask", "owner/tiny", "--max-tokens", "4", "one plus one?")
    with serve({"owner/tiny": Repository({COMMIT: files}, {"main": COMMIT})}) as hub:
        first = run_thirteen(tmp_path, hub.url, *words)
    assert first.returncode == 0 and "answer: " in first.stdout, first
    told = "owner/tiny: a download, unless the hub's cache has it, then a conversion to 4.5bpw"
    assert told in first.stderr
    second = run_thirteen(tmp_path, "http://127.0.0.1:9", *words)
    assert second.returncode == 0 and "download" not in second.stderr, second
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THIRTEEN_CACHE", str(tmp_path / "cache"))
        (model,) = cached_models()
        assert (model.name, model.base) == ("owner--tiny-4.5bpw", "owner/tiny")
        remove_model(model.name)
        assert cached_models() == [] and list(model.path.parent.iterdir()) == []


def test_a_file_a_folder_and_the_embedded_model_are_models(base, cache, quick, tmp_path, monkeypatch):
    file = write_gguf(tmp_path / "a.gguf", {}, {})
    assert resolve(str(file)) == ModelFiles(file)
    said: list[str] = []
    folders = [resolve(str(base("llama")), announce=said.append).model for _ in range(2)]
    assert folders[0] == folders[1] and folders[0].parent == cache
    assert len(said) == 1 and said[0].endswith("/llama: a conversion to 4.5bpw. Later it starts at once.")
    assert read_header(folders[0]).metadata["general.architecture"] == "llama"
    (base("llama") / "config.json").touch()
    assert resolve(str(base("llama"))).model != folders[0]
    asked: list[str | None] = []

    def default_model(adapter: str | None, **_: object) -> Path:
        asked.append(adapter)
        return file

    monkeypatch.setattr(resolve_module, "default_model", default_model)
    resolve(None)
    with_another = resolve(None, {"mine": file})
    resolve("embedded")
    resolve("smollm2-135m")
    assert asked == ["smollm2-135m-sums-840", None, "smollm2-135m-sums-840", None]
    assert with_another == ModelFiles(file, {"mine": file}), "instead of the merged one"


def test_a_question_that_ends_in_a_files_name_is_no_model(tmp_path):
    assert is_model_name("tiny.gguf") and not is_model_name("What is in tiny.gguf")
    assert not is_model_name("Janet has ducks. " * 20), "longer than a name may be"
    (tmp_path / "my model.gguf").touch()
    assert is_model_name(str(tmp_path / "my model.gguf"))


def test_a_converted_model_is_used_again_as_it_is_and_the_newest_is_listed_first(cache):
    """A use changed the model's own times, so that each start tried the file anew."""
    for number, name in enumerate(("old", "tiny", "new")):
        os.utime(converted(cache, name), (50, 100 + number))
    assert [model.base for model in cached_models()] == ["owner/new", "owner/tiny", "owner/old"]
    model = cache / "owner--tiny-4.5bpw.gguf"
    before = file_stamp(model)
    assert resolve("owner/tiny").model == model and file_stamp(model) == before
    assert remove_model(model.stem).converted_at == 101
    assert not list(cache.glob("owner--tiny*"))


def test_what_was_not_converted_here_is_neither_listed_nor_removed(cache):
    write_gguf(cache / "foreign.gguf", {}, {})
    (cache / "damaged.gguf").write_bytes(b"GGUF")
    assert cached_models() == []
    for name in ("foreign", "damaged", "../models/foreign", ""):
        with pytest.raises(RequestError, match="is not in the cache, which has no models"):
            remove_model(name)
    assert len(list(cache.iterdir())) == 2
