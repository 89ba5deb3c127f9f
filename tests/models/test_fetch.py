"""Resolution of names and paths, and downloads by huggingface_hub in a subprocess from a fake hub."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from thirteen.errors import FileError, OfflineError
from thirteen.models.base import fetch
from thirteen.models.catalogue import adapter_folder, catalogue
from thirteen.models.embedded import embedded
from thirteen.models.hub import check_host

from .hub_server import Repository, hub_environment, serve

pytestmark = pytest.mark.slow

OLD, NEW = "0" * 39 + "1", "0" * 39 + "2"
WEIGHTS = os.urandom(100_000)
BASE = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}", "model.safetensors": WEIGHTS}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
OTHERS = ("config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja")
SHARDED = {
    **{name: name.encode() for name in OTHERS},
    **dict(zip(SHARDS, (WEIGHTS[:60_000], WEIGHTS[60_000:]), strict=True)),
    "model.safetensors.index.json": json.dumps({"weight_map": dict(zip("ab", SHARDS, strict=True))}).encode(),
}
NOT_NEEDED = dict.fromkeys(
    ("README.md", "consolidated.safetensors", "original/params.safetensors", "pytorch_model.bin"), b"no"
)
ADAPTER = {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS[:9], "README.md": b"#"}

_CHILD = """
import json, sys
from thirteen.errors import FileError
from thirteen.models.base import fetch
for line in sys.stdin:
    source, kind = json.loads(line)
    try:
        print(json.dumps(["path", str(fetch(source, kind=kind))]), flush=True)
    except FileError as error:
        print(json.dumps(["error", str(error)]), flush=True)
"""


class Child:
    """Calls `fetch` in one subprocess per environment: huggingface_hub reads the environment once."""

    def __init__(self, url: str, home: Path) -> None:
        self.home = home
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._environment = hub_environment(url, home)

    def close(self) -> None:
        for process in self._processes.values():
            process.communicate()  # end of input ends the process

    def _ask(self, call: tuple[str, str], environment: dict[str, str]) -> tuple[str, str]:
        key = repr(environment)
        if key not in self._processes:
            self._processes[key] = subprocess.Popen(
                [sys.executable, "-c", _CHILD],
                env=self._environment | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        process = self._processes[key]
        process.stdin.write(json.dumps(call) + "\n")
        process.stdin.flush()
        outcome, text = json.loads(process.stdout.readline())
        return outcome, text

    def path(self, source: str, kind: str = "base", **environment: str) -> Path:
        outcome, text = self._ask((source, kind), environment)
        assert outcome == "path", text
        return Path(text)

    def error(self, source: str, kind: str = "base", **environment: str) -> str:
        outcome, text = self._ask((source, kind), environment)
        assert outcome == "error", text
        assert "\n" not in text
        return text


@pytest.fixture
def repository():
    return Repository({OLD: BASE, NEW: SHARDED | NOT_NEEDED}, {"main": NEW, "v1": OLD, "refs/pr/3": OLD})


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serve({}) as hub, closing(Child(hub.url, tmp_path_factory.mktemp("user") / "home")) as child:
        yield hub, child


@pytest.fixture
def hub(served, repository):
    served[0].requests.clear()
    adapter = Repository({OLD: ADAPTER | {"optimizer.bin": b"state"}}, {"main": OLD})
    served[0].repositories = {"some/base": repository, "some/adapter": adapter}
    return served[0]


@pytest.fixture
def child(served, hub):
    """With an empty cache: the processes stay, since a start takes most of a second."""
    shutil.rmtree(served[1].home, ignore_errors=True)
    return served[1]


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_the_needed_files_are_downloaded(child, hub):
    assert _contents(child.path("some/base")) == SHARDED
    assert not hub.downloaded() & set(NOT_NEEDED)
    assert _contents(child.path("some/adapter", kind="adapter")) == ADAPTER


def test_a_revision_is_part_of_the_name(child):
    folder = child.path("some/base@v1")
    assert folder.name == OLD
    assert _contents(folder) == BASE
    assert child.path(f"some/base@{OLD}") == child.path("some/base@refs/pr/3") == folder
    assert child.path("some/base@main").name == NEW


def test_a_file_with_another_hash_is_deleted(child, repository):
    repository.corrupted["model.safetensors"] = WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1])
    assert "model.safetensors is damaged and was deleted: SHA-256 is" in child.error("some/base@v1")
    assert not list(child.home.rglob("model.safetensors"))
    assert all(path.stat().st_size < len(WEIGHTS) for path in child.home.rglob("blobs/*"))
    repository.corrupted.clear()
    assert _contents(child.path("some/base@v1")) == BASE


def test_a_file_that_changed_on_disk_is_downloaded_again(child, hub):
    weights = child.path("some/base@v1") / "model.safetensors"
    hub.requests.clear()
    child.path("some/base@v1")
    assert not hub.downloaded()
    weights.write_bytes(bytes(len(WEIGHTS)))
    assert "model.safetensors is damaged" in child.error("some/base@v1", HF_HUB_OFFLINE="1")
    assert _contents(child.path("some/base@v1")) == BASE
    assert hub.downloaded() == {"model.safetensors"}


@pytest.mark.parametrize("status", [401, 403])
def test_the_error_of_a_gated_repository_says_how_to_get_access(child, hub, repository, status):
    base = catalogue().bases["llama-3.2-1b"]
    hub.repositories[base.hub_id] = Repository({base.revision: BASE}, {}, status=status)
    message = child.error("llama-3.2-1b")
    assert f"{base.hub_id} is gated: accept its licence at https://huggingface.co/{base.hub_id}" in message
    assert "`hf auth login` or set HF_TOKEN=" in message
    assert message.endswith(f"; or use its public copy {base.public_copy}, under the same licence")
    repository.status, repository.error_code = status, ""
    answers = {401: "the hub answers 401 for some/base (revision main)", 403: "to this token, which may lack"}
    assert answers[status] in child.error("some/base", HF_TOKEN="x")


def test_missing_repositories_revisions_and_files_are_named(child):
    assert child.error("some/other@v7").startswith("no repository some/other (revision v7) on the hub")
    assert child.error("some/base@v9") == "some/base has no revision 'v9' on the hub"
    assert child.error("some/adapter") == f"some/adapter at {OLD}: no config.json: it is no base"


def test_offline_only_a_complete_cache_is_used(child, hub):
    folder = child.path("some/base")
    for away in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        assert child.path("some/base", **away) == folder
    hub.requests.clear()
    message = "some/base (revision v1) is not complete in the cache, and HF_HUB_OFFLINE is set"
    assert child.error("some/base@v1", HF_HUB_OFFLINE="1") == message
    assert not hub.requests


@pytest.mark.exhaustive
def test_a_hub_that_cannot_be_reached_is_named_with_what_works_offline(child):
    """The library tried again for 24 seconds, and the error named no host."""
    child.path("some/base")
    start, away = time.monotonic(), {"HF_ENDPOINT": "http://127.0.0.1:9"}
    message = child.error("some/base@v1", **away)
    assert message.startswith(
        "127.0.0.1 cannot be reached (Connection refused), and some/base (revision v1) is not complete "
        "in the cache; these work offline: embedded, some/base, "
    )
    assert "smollm2-135m-sums-13" in child.error("some/adapter", "adapter", **away)
    assert child.path("smollm2-135m", **away) == embedded()
    assert "cannot be reached through the proxy" in child.error("a/b", HTTP_PROXY="127.0.0.1:9", NO_PROXY="")
    assert "no valid address (Invalid IPv6 URL)" in child.error("a/b", HTTP_PROXY="http://[::1", NO_PROXY="")
    assert time.monotonic() - start < 10  # two processes start


def test_a_host_that_does_not_answer_is_given_up():
    with socket.socket() as full, ExitStack() as clients:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # fill its backlog, so that the next packets are dropped
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        start = time.monotonic()
        with pytest.raises(OfflineError, match=r"^127.0.0.1 cannot be reached \((no answer|timed out)"):
            check_host(f"http://127.0.0.1:{full.getsockname()[1]}")
    assert time.monotonic() - start < 5


def test_file_names_that_escape_from_the_cache_write_nothing(child, hub, repository):
    """File names of a repository are untrusted, and the star of a pattern also matches separators."""
    outside = child.home.parent
    starts = ("../../", "/", f"{outside}/", "..\\..\\", "a/../../../", "C:")
    hostile = [f"{start}evil.safetensors" for start in starts]
    repository.commits[OLD] = BASE | dict.fromkeys(hostile, b"evil")
    assert _contents(child.path("some/base@v1")) == BASE
    assert hub.downloaded() == set(BASE)
    assert not list(outside.rglob("*evil*"))
    assert {path.name for path in outside.iterdir()} == {"home"}


def test_revisions_and_ids_that_escape_from_the_cache_are_refused(child, hub):
    for source in ("some/base@../../x", "some/base@/x", "some/ba se"):
        with pytest.raises(FileError, match="not a hub id and revision"):
            fetch(source, kind="base")
    assert not hub.requests


def test_a_catalogue_name_resolves_to_its_repository(child, hub, repository):
    base = catalogue().bases["smollm2-360m"]
    repository.commits[base.revision] = SHARDED
    hub.repositories[base.hub_id] = repository
    assert child.path("smollm2-360m").name == base.revision
    assert child.path("smollm2-360m@v1").name == OLD
    assert "did you mean smollm2-135m" in child.error("smollm2-135n")


def test_an_existing_path_is_returned_unchanged(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    file = tmp_path / "model.gguf"
    file.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch(str(file), kind="base") == file
    assert fetch("~/model.gguf", kind="base") == file
    assert fetch("owner/name", kind="adapter") == Path("owner/name")


@pytest.mark.parametrize(
    "source",
    ["./a", "../a/b", "/a/b", "~nobody/a", "a/b/c", "a\\b", "out/model.gguf", "", "x" * 5_000 + "//"],
)
def test_a_string_that_looks_like_a_path_never_goes_to_the_hub(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match="no such file or folder"):
        fetch(source, kind="base")


def test_a_shipped_adapter_is_found_by_name():
    for name, adapter in catalogue().adapters.items():
        assert adapter.code or fetch(name, kind="adapter") == adapter_folder(name)
    with pytest.raises(FileError, match="no adapter 'smollm2-135m'"):
        fetch("smollm2-135m", kind="adapter")
