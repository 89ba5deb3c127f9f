"""One Ray cluster for all tests, of two nodes on this machine, and changes of the tiny model."""

import os
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import pytest

from ..runtime.conftest import write_tiny

# Ray reads them when it is imported: its head nodes listen on loopback, and need a token.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", token_hex())
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
# As if every node were too busy for Ray Serve's time limit: Thirteen must set its own.
os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "0.001")

from ray.cluster_utils import Cluster

__all__ = ["write_tiny"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Each node has one processor, and the first is the head."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()
