"""Records of trusted files: by bytes and by state, only where no other user can write them."""

import os
import shutil
from pathlib import Path

import pytest
from thirteen.errors import RequestError
from thirteen.files import hashing, trusted_files
from thirteen.files.trusted_files import FileState, trust_file, untrusted_by_default


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(b"one")
    return path


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process knows, so that only the cache counts, as for a new process."""
    monkeypatch.setattr(trusted_files, "_recorded_here", set())


def test_a_file_is_not_trusted_until_it_is_recorded(file, records, monkeypatch):
    state = FileState.now(file)
    assert not state.trusted
    state.trust()
    forget(monkeypatch)
    assert FileState.now(file).trusted
    assert {path.name for path in records.iterdir()} == {state.stamp, hashing.file_sha256(file)}


@pytest.mark.parametrize("make", [Path.rename, shutil.copy, os.link], ids=["renamed", "copied", "linked"])
def test_a_record_belongs_to_the_bytes(make, file, records, monkeypatch):
    trust_file(file)
    make(file, other := file.with_name("b.gguf"))
    forget(monkeypatch)
    assert FileState.now(other).trusted
    monkeypatch.delattr(hashing, "file_sha256")  # the new path is recorded as well
    assert FileState.now(other).trusted


def test_other_bytes_of_the_same_size_and_time_are_another_file(file, records):
    """Whoever can write the file can set its modification time."""
    trust_file(file)
    found = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert file.stat().st_mtime_ns == found.st_mtime_ns and file.stat().st_size == found.st_size
    assert not FileState.now(file).trusted


def test_a_file_that_has_changed_since_is_not_recorded(file, records):
    """What was tried is not what is there now."""
    state = FileState.now(file)
    assert not state.trusted
    file.write_bytes(b"another")
    state.trust()
    assert not records.exists() and not FileState.now(file).trusted


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
def test_records_that_others_may_have_written_do_not_count(file, records, monkeypatch):
    trust_file(file)
    forget(monkeypatch)
    records.chmod(0o777)
    assert not FileState.now(file).trusted
    records.chmod(0o700)
    assert FileState.now(file).trusted


@pytest.mark.parametrize("place", ["cache", "cache/trusted"])
def test_a_cache_that_cannot_be_written_is_no_error(place, file, records, tmp_path, monkeypatch):
    """A file stands where the folder would be, which even root cannot write to."""
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("")
    assert not FileState.now(file).trusted
    trust_file(file)
    assert FileState.now(file).trusted, "this process knows it all the same"
    forget(monkeypatch)
    assert not FileState.now(file).trusted


def test_only_regular_files_have_a_state(tmp_path):
    """A hash of /dev/zero or of a pipe would never end."""
    for path in (tmp_path, Path(os.devnull)):
        with pytest.raises(OSError, match="not a regular file") as raised:
            FileState.now(path)
        assert raised.value.filename == str(path)


def test_the_environment_decides_for_all_files(file, records, monkeypatch):
    assert untrusted_by_default() is None
    for value, expected in {"": None, "always": True, "never": False}.items():
        monkeypatch.setenv("THIRTEEN_UNTRUSTED", value)
        assert untrusted_by_default() is expected
    trust_file(file)
    assert not records.exists(), "with `never` nothing reads records"
    monkeypatch.setenv("THIRTEEN_UNTRUSTED", "yes")
    with pytest.raises(RequestError, match=r"^THIRTEEN_UNTRUSTED=yes: must be always or never$"):
        untrusted_by_default()
