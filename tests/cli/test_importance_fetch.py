"""`importance --fetch`: a published file goes from the hub to where `convert --size` looks for it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from thirteen.convert.source.checkpoint import open_checkpoint
from thirteen.files.gguf.header import read_header
from thirteen.workflows.importance_cache import measure_importance

from ..commands import CommandResult, Commands
from ..models.hub_server import Hub, Repository, serve

COMMIT = "0" * 39 + "1"
TEXT = json.dumps({"text": "Three pens cost $3.60, so one pen costs $1.20. " * 12}) + "\n"
# The command with a catalogue of the test.
_CHILD = """
import sys
from pathlib import Path
from thirteen.models import catalogue
catalogue._HERE = Path(sys.argv.pop(1))
from thirteen.cli.main import main
main()
"""
_CATALOGUE = """
[embedded]
base = "tiny"
package = "none"
file = "none"
sha256 = "0"

[adapters]

[bases.other]
hub_id = "owner/other"
revision = "main"
licence = "mit"
gated = false
architecture = "llama"
parameters = 1
config = {{}}

[bases.tiny]
hub_id = "owner/tiny"
revision = "main"
licence = "mit"
gated = false
architecture = "llama"
parameters = 1
config = {{}}
importance = {{ hub_id = "owner/importance", revision = "{commit}", file = "tiny.gguf", sha256 = "{hash}", \
base_sha256 = "{base}" }}
"""


@pytest.fixture(scope="module")
def published(base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("published")
    (folder / "texts.jsonl").write_text(TEXT, "utf-8")
    texts = folder / "texts.jsonl"
    measure_importance(base("llama"), None, folder / "a.gguf", calibration=texts, threads=1)
    return (folder / "a.gguf").read_bytes()


@pytest.fixture
def hub(published: bytes) -> Iterator[Hub]:
    repository = Repository({COMMIT: {"tiny.gguf": published}}, {"main": COMMIT})
    with serve({"owner/importance": repository}) as running:
        yield running


@pytest.fixture
def thirteen(
    hub: Hub, published: bytes, base: Callable[[str], Path], tmp_path: Path
) -> Callable[..., CommandResult]:
    """Run the command with the catalogue, the hub and a cache of the test."""
    text = _CATALOGUE.format(
        commit=COMMIT, hash=sha256(published).hexdigest(), base=open_checkpoint(base("llama")).sha256()
    )
    (tmp_path / "catalogue.toml").write_text(text)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))} | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "THIRTEEN_CACHE": str(tmp_path / "cache"),
    }

    def run(*arguments: object) -> CommandResult:
        command = [sys.executable, "-c", _CHILD, str(tmp_path), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return CommandResult(done.returncode, done.stdout, done.stderr)

    return run


def test_a_fetched_file_is_the_one_that_convert_uses(
    thirteen: Callable[..., CommandResult],
    published: bytes,
    base: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    done = thirteen("importance", "tiny", "--fetch", "--json")
    assert done.status == 0, done.stderr
    fetched = Path(json.loads(done.stdout)["output"])
    assert fetched.read_bytes() == published and fetched.parent == tmp_path / "cache"
    made = thirteen("convert", base("llama"), "--size", "9bpw", "--output", tmp_path / "a.gguf")
    assert made.status == 0, made.stderr
    used = read_header(tmp_path / "a.gguf").metadata["thirteen.importance.sha256"]
    assert used == sha256(published).hexdigest()
    assert list((tmp_path / "cache").glob("importance-*")) == [fetched]


def test_a_file_with_another_hash_is_refused(
    thirteen: Callable[..., CommandResult], hub: Hub, tmp_path: Path
) -> None:
    hub.repositories["owner/importance"].corrupted["tiny.gguf"] = b"other bytes"
    done = thirteen("importance", "tiny", "--fetch")
    assert done.status == 2 and "error: " in done.stderr, done.stderr
    assert not list((tmp_path / "cache").glob("importance-*"))


@pytest.mark.parametrize("name", ["other", "embedded"])
def test_a_base_without_a_published_file(thirteen: Callable[..., CommandResult], name: str) -> None:
    done = thirteen("importance", name, "--fetch")
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: no importance file is published for {name}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("llama-3.2-1b", "--fetch"), "no importance file is published for llama-3.2-1b"),
        (("llama", "--fetch"), "no base 'llama'"),
        (("llama-3.2-1b", "--fetch", "--output", "a.gguf"), "--fetch takes no other option"),
        (("llama-3.2-1b",), "--output is missing"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    with Commands() as commands:
        done = commands("importance", *arguments)
    assert done.status == 2 and done.stdout == ""
    assert message in done.stderr and "Traceback" not in done.stderr
