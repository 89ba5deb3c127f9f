"""One Ray cluster for all tests, and changes of the tiny model."""

from collections.abc import Iterator
from typing import Any

import pytest

from ..runtime.conftest import write_tiny
from .ray_cluster import two_nodes

__all__ = ["write_tiny"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    with two_nodes() as cluster:
        yield cluster
