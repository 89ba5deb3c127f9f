"""Files that others made: pipes, links that lead outside a folder, too long ones, and records of trust."""

import os

import pytest
from thirteen.errors import FileError, RequestError
from thirteen.files import trusted_files
from thirteen.files.gguf.header import read_header
from thirteen.files.json_file import read_bounded, read_json
from thirteen.files.received_files import check_links
from thirteen.files.safetensors import SafetensorsFile
from thirteen.files.trusted_files import is_trusted, trust_file, untrusted_by_default

from ..refusals import refused


@pytest.mark.parametrize("read", [read_json, read_header, SafetensorsFile])
@pytest.mark.parametrize(
    ("path", "message"),
    [("pipe", "not a regular file"), ("/dev/zero", "not a regular file"), (".", "Is a directory")],
)
def test_only_a_regular_file_is_read(read, path, message, tmp_path):
    """Opening the pipe waited for a writer; the device never ended."""
    os.mkfifo(tmp_path / "pipe")
    with refused(tmp_path / path, message, FileError):
        read(tmp_path / path)


@pytest.mark.parametrize("name", ["LICENSE", "additional_chat_templates/rag.jinja"])
def test_a_link_that_leads_outside_its_folder_is_refused(name, tmp_path):
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "base"
    (folder / name).parent.mkdir(parents=True)
    (folder / "inside").write_text("{}")
    (folder / "config.json").symlink_to("inside")
    check_links(folder)
    (tmp_path / "link").symlink_to("base")
    check_links(tmp_path / "link")
    (folder / name).symlink_to(tmp_path / "secret")
    with pytest.raises(FileError, match=f"{name}: leads outside the folder"):
        check_links(folder)


def test_a_link_to_a_folder_outside_and_a_circle_of_links(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "a").symlink_to("b")
    (tmp_path / "base" / "b").symlink_to("a")
    check_links(tmp_path / "base")
    (tmp_path / "base" / "additional_chat_templates").symlink_to("..")
    with pytest.raises(FileError, match="additional_chat_templates: leads outside"):
        check_links(tmp_path / "base")


def test_a_snapshot_of_the_hubs_cache_leads_to_its_own_blobs_only(tmp_path):
    repository = tmp_path / "models--some--base"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for name in ("blobs/hash", "secret"):
        (repository / name).write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/hash")
    check_links(snapshot)
    (snapshot / "LICENSE").symlink_to("../../secret")
    with pytest.raises(FileError, match="LICENSE: leads outside"):
        check_links(snapshot)


@pytest.mark.parametrize("length", [0, 1 << 20, (1 << 20) + 1, 5 << 20])
def test_a_file_of_any_length_is_read_up_to_the_limit(tmp_path, length):
    data = bytes(range(256)) * (length // 256) + b"a" * (length % 256)
    (tmp_path / "a").write_bytes(data)
    assert read_bounded(tmp_path / "a", length) == data
    if length:
        with pytest.raises(FileError, match=r"a: more than [0-9,]+ bytes, the limit"):
            read_bounded(tmp_path / "a", length - 1)


@pytest.fixture
def file(tmp_path):
    """A file that nothing trusts."""
    path = tmp_path / "a.gguf"
    path.write_bytes(b"one")
    return path


def is_trusted_by_others(file, monkeypatch):
    """Whether another process trusts a file: only the cache folder counts."""
    with monkeypatch.context() as other:
        other.setattr(trusted_files, "_recorded_here", set())
        return is_trusted(file)


@pytest.mark.usefixtures("records")
def test_a_file_is_trusted_by_all_processes_until_it_changes(file, monkeypatch):
    assert not is_trusted(file)
    trust_file(file)
    assert is_trusted(file) and is_trusted_by_others(file, monkeypatch)
    file.write_bytes(b"two")
    assert not is_trusted(file)


@pytest.mark.usefixtures("records")
@pytest.mark.parametrize("place", ["cache", "cache/trusted"])
def test_a_cache_that_cannot_be_written_is_no_error(place, file, tmp_path, monkeypatch):
    """A file stands where the folder would be, which even root cannot write to."""
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("")
    trust_file(file)
    assert is_trusted(file) and not is_trusted_by_others(file, monkeypatch)


def test_the_environment_has_three_values(monkeypatch):
    for value, expected in {"": None, "always": True, "never": False}.items():
        monkeypatch.setenv("THIRTEEN_UNTRUSTED", value)
        assert untrusted_by_default() is expected
    monkeypatch.setenv("THIRTEEN_UNTRUSTED", "yes")
    with pytest.raises(RequestError, match=r"^THIRTEEN_UNTRUSTED=yes: must be always or never$"):
        untrusted_by_default()
