"""A cache of a module's own, for what runs as a command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..commands import Commands


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THIRTEEN_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def thirteen(cache: Path) -> Iterator[Commands]:
    with Commands() as commands:
        yield commands
