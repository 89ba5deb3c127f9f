"""Models by name: from a stand-in hub to an answer, at once the second time, listed and removed."""

import json
import os
import subprocess
import sys

import gguf
import pytest
from thirteen.errors import RequestError
from thirteen.files.trusted_files import FileState
from thirteen.workflows import model_cache
from thirteen.workflows.model_cache import (
    cached_model,
    cached_models,
    is_model_name,
    named_model,
    remove_model,
)

from ..models.hub_server import Repository, serve
from ..runtime.conftest import write_gguf

pytestmark = pytest.mark.slow

COMMIT = "0" * 39 + "1"


def run_thirteen(home, url, *arguments, stdin=""):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home / "hub"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "THIRTEEN_CACHE": str(home / "cache"),
    }
    command = [sys.executable, "-m", "thirteen", *map(str, arguments)]
    return subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def home(base, tmp_path_factory):
    """A home with the model `owner/tiny`, of which one question was asked while the hub was reachable."""
    files = {path.name: path.read_bytes() for path in base("llama wide").iterdir() if path.is_file()}
    home = tmp_path_factory.mktemp("home")
    with serve({"owner/tiny": Repository({COMMIT: files}, {"main": COMMIT})}) as hub:
        first = run_thirteen(
            home, hub.url, "chat", "owner/tiny", "--max-tokens", "4", stdin="one plus one?\n"
        )
    assert first.returncode == 0 and "answer: " in first.stdout, first
    assert (
        "owner/tiny: a download, unless the hub's cache has it, then a conversion to 4.5bpw" in first.stderr
    )
    return home


def test_the_second_time_needs_no_hub(home):
    second = run_thirteen(
        home, "http://127.0.0.1:9", "ask", "owner/tiny", "--max-tokens", "4", "one plus one?"
    )
    assert second.returncode == 0 and "download" not in second.stderr, second


def test_rollouts_take_a_model_by_its_name(home, tmp_path):
    """It downloaded the checkpoint and failed to load the folder: Is a directory."""
    (rows := tmp_path / "rows.jsonl").write_text('{"question": "What is 1 + 1?", "answer": "2"}\n')
    options = ("--questions", rows, "--samples", 2, "-o", tmp_path / "out", "--max-tokens", 4, "--threads", 1)
    done = run_thirteen(home, "http://127.0.0.1:9", "rollouts", "owner/tiny", *options)
    assert done.returncode == 0, done


def test_converted_models_are_listed_shown_and_removed(home):
    listed = json.loads(run_thirteen(home, "", "models", "list", "--json").stdout)["models"]
    assert [(model["name"], model["base"]) for model in listed] == [("owner--tiny-4.5bpw", "owner/tiny")]
    shown = run_thirteen(home, "", "models", "show", "owner--tiny-4.5bpw").stdout
    assert str(listed[0]["path"]) in shown.replace("\n", "")
    assert listed[0]["predicted_divergence"] > 0
    assert f"{listed[0]['predicted_divergence']:.4f} nats" in shown
    other = run_thirteen(home, "", "models", "rm", "../models/owner--tiny-4.5bpw")
    assert other.returncode == 2 and "is not in the cache, which has owner--tiny-4.5bpw" in other.stderr
    assert "deleted" in run_thirteen(home, "", "models", "rm", "owner--tiny-4.5bpw").stderr
    assert json.loads(run_thirteen(home, "", "models", "list", "--json").stdout) == {"models": []}
    assert list((home / "cache/models").iterdir()) == []


@pytest.mark.parametrize("record", [None, '{"predicted_divergence": 0.5}'])
def test_a_use_by_name_is_kept_beside_the_model(tmp_path, monkeypatch, record):
    """It changed the model's own times, so that each start hashed the whole file to trust it."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    for number, name in enumerate(("old", "tiny", "new")):
        keys = {"thirteen.base.id": (f"owner/{name}", gguf.GGUFValueType.STRING, None)}
        path = write_gguf(model_cache._folder() / f"owner--{name}-4.5bpw.gguf", keys, {})
        if record is not None:
            path.with_name(f"{path.name}.json").write_text(record)
            os.utime(path.with_name(f"{path.name}.json"), (50, 50))
        os.utime(path, (100 + number, 100 + number))  # the last use, to an earlier version
    used = [(model.base, model.used_at) for model in cached_models()]
    assert used == [("owner/new", 102), ("owner/tiny", 101), ("owner/old", 100)]
    path = cached_model("owner--tiny-4.5bpw").path
    before = FileState.now(path)
    assert named_model("owner/tiny") == path and FileState.now(path) == before
    assert [model.base for model in cached_models()] == ["owner/tiny", "owner/new", "owner/old"]
    assert cached_model(path.stem).predicted_divergence == (0.5 if record else None)
    remove_model(path.stem)
    assert not list(path.parent.glob("owner--tiny*"))


@pytest.mark.parametrize("record", [None, "", "{", "[]", "{}", '{"predicted_divergence": "0.1"}'])
def test_a_model_without_a_record_has_no_prediction(tmp_path, monkeypatch, record):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    text = gguf.GGUFValueType.STRING
    path = write_gguf(
        model_cache._folder() / "tiny.gguf", {"thirteen.base.id": ("owner/tiny", text, None)}, {}
    )
    if record is not None:
        path.with_name("tiny.gguf.json").write_text(record)
    assert cached_model("tiny").predicted_divergence is None


def test_what_was_not_converted_here_is_neither_listed_nor_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    folder = model_cache._folder()
    write_gguf(folder / "foreign.gguf", {}, {})
    (folder / "damaged.gguf").write_bytes(b"GGUF")
    assert cached_models() == []
    for name in ("foreign", "damaged", "nothing", ""):
        with pytest.raises(RequestError, match="is not in the cache, which has no models"):
            cached_model(name)
        with pytest.raises(RequestError):
            remove_model(name)
    assert len(list(folder.iterdir())) == 2


def test_names_and_paths_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "model").write_text("")
    names = ["llama-3.2-1b", "smollm2-135m@main", "someone/model", "someone/model@v1"]
    names.append("someone/" + "a" * 300)  # longer than a file's name can be
    paths = [
        "owner/model",
        "model.gguf",
        "someone/model.gguf",
        "./model",
        "../a",
        "a/b/c",
        "~/model",
        "/a/b",
        "x",
        "a" * 300,
    ]
    assert [is_model_name(name) for name in (*names, *paths)] == [True] * 5 + [False] * 10
