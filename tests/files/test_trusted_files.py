"""Records of trusted files: by path, size and times, only where no other user can write them."""

from pathlib import Path

import pytest
from thirteen.errors import RequestError
from thirteen.files import trusted_files
from thirteen.files.trusted_files import is_trusted, trust_file, untrusted_by_default


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that nothing trusts."""
    path = tmp_path / "a.gguf"
    path.write_bytes(b"one")
    return path


def is_trusted_by_others(file: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether another process trusts a file: only the cache folder counts."""
    with monkeypatch.context() as other:
        other.setattr(trusted_files, "_recorded_here", set())
        return is_trusted(file)


def test_a_file_is_trusted_by_all_processes_until_it_changes(
    file: Path, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_trusted(file)
    trust_file(file)
    assert is_trusted(file) and is_trusted_by_others(file, monkeypatch)
    file.write_bytes(b"two")
    assert not is_trusted(file)


@pytest.mark.parametrize("place", ["cache", "cache/trusted"])
def test_a_cache_that_cannot_be_written_is_no_error(
    place: str, file: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file stands where the folder would be, which even root cannot write to."""
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("")
    trust_file(file)
    assert is_trusted(file) and not is_trusted_by_others(file, monkeypatch)


def test_the_environment_has_three_values(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in {"": None, "always": True, "never": False}.items():
        monkeypatch.setenv("THIRTEEN_UNTRUSTED", value)
        assert untrusted_by_default() is expected
    monkeypatch.setenv("THIRTEEN_UNTRUSTED", "yes")
    with pytest.raises(RequestError, match=r"^THIRTEEN_UNTRUSTED=yes: must be always or never$"):
        untrusted_by_default()
