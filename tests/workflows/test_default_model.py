"""The default model in the cache: one file for each base that is embedded."""

from pathlib import Path

import pytest
from thirteen.files.gguf.header import read_header
from thirteen.models.catalogue import catalogue
from thirteen.workflows.default_model import default_model


@pytest.mark.slow
def test_a_file_of_another_base_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name had no hash of the base: a new package was served from the file of the old one."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    (tmp_path / "smollm2-135m-Q8_0.gguf").write_bytes(b"of an older package")
    path = default_model(adapted=False)
    assert read_header(path).metadata["thirteen.base.sha256"] == catalogue().embedded.sha256
    assert catalogue().embedded.sha256[:8] in path.name
    written = path.stat().st_mtime_ns
    assert default_model(adapted=False).stat().st_mtime_ns == written, "it is converted once"
