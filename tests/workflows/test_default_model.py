"""The default model in the cache: one file for each base that is embedded."""

from pathlib import Path
from typing import Any

import pytest
from thirteen.models.catalogue import catalogue
from thirteen.workflows import default_model as module
from thirteen.workflows.default_model import default_model


def test_a_file_of_another_base_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name had no hash of the base: a new package was served from the file of the old one."""
    monkeypatch.setenv("THIRTEEN_CACHE", str(tmp_path))
    (tmp_path / "smollm2-135m-Q8_0.gguf").write_bytes(b"of an older package")
    made: list[dict[str, Any]] = []

    def convert(base: Path, output: Path, **options: Any) -> None:
        output.write_bytes(b"GGUF")
        made.append(options)

    monkeypatch.setattr(module, "convert", convert)
    path = default_model(adapted=False)
    assert path.read_bytes() == b"GGUF" and catalogue().embedded.sha256[:8] in path.name
    assert default_model(adapted=False) == path and len(made) == 1, "it is converted once"
    assert default_model() != path and made[1]["adapter"].name == "smollm2-135m-sums-13"
