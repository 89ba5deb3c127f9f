"""Connection to a Ray cluster (https://docs.ray.io), its capacity, and the files that its workers fetch.

Ray is imported only when a cluster is used.
"""

import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import ModelFileError, RequestError, install_hint
from .file_transfer import RemoteFile, read_chunk

LOCAL = "local"  # address of a cluster on this machine that starts and ends with the command
AUTO = "auto"  # address of the cluster that this machine is part of
_NAMESPACE = "thirteen"
_RAISED = re.compile(r"(\w+\.)*\w+(Error|Exception): ")
_CONNECT_TIMEOUT_S = 5.0


def import_ray() -> Any:
    """Import Ray.

    Raises:
        RequestError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send no telemetry to Ray's makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns at every start
    try:
        import ray  # noqa: PLC0415 - an extra
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise RequestError(f"--ray: needs Ray ({error}): {install_hint('ray')}") from None
    return ray


@contextmanager
def ray_session(address: str) -> Iterator[Any]:
    """Connect to a cluster for the duration of the block.

    Args:
        address: LOCAL, AUTO, or HOST:PORT of the head node.

    Yields:
        The module ray.

    Raises:
        RequestError: Ray is not installed, cannot connect, or the cluster has another version.
    """
    ray = import_ray()
    if address not in {LOCAL, AUTO}:
        _check_reachable(address)
    local = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}  # Ray trusts all who can connect
    try:
        ray.init(
            address=address,
            namespace=_NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(local if address == LOCAL else {}),
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise RequestError(f"--ray {address}: {error_line(error)}") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdigit()) or "/" in host:
        raise RequestError(f"--ray {address}: must be {AUTO} or HOST:PORT of the head node")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"--ray {address}: cannot connect: {reason}") from None


def error_line(error: Exception) -> str:
    """Return an error in one line: the exception at the end of a remote traceback, or the whole message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if _RAISED.match(line)]
    return raised[-1] if raised else " ".join(lines) or type(error).__name__


def worker_capacity(ray: Any, cpus: int, required: int | None = None) -> int:
    """Return how many workers fit on the cluster's nodes, not counting what others use now.

    Args:
        ray: the module.
        cpus: processors of a worker.
        required: minimum number of workers.

    Raises:
        RequestError: none fit, or fewer than required.
    """
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    capacity = sum(node_cpus // cpus for node_cpus in nodes)
    if not capacity:
        raise RequestError(
            f"--ray: no node has the {cpus} processors of a worker (they have {', '.join(map(str, nodes))}): "
            "reduce --threads"
        )
    if required is not None and required > capacity:
        raise RequestError(f"--ray: {required} workers requested, but the nodes have room for {capacity}")
    return capacity


class FileActor:
    """Ray actor on the command's node that serves its files to the workers."""

    def __init__(self, files: Mapping[str, RemoteFile]) -> None:
        """Serve files, by their SHA-256."""
        self._files = dict(files)

    def read(self, sha256: str, offset: int) -> bytes:
        """Read a chunk of a file; see read_chunk()."""
        return read_chunk(self._files[sha256].path, offset)


class SharedFiles:
    """Files of the command that workers on any node can fetch."""

    def __init__(self, ray: Any, *paths: Path) -> None:
        """Share files until the command disconnects."""
        self._files = [RemoteFile.from_path(path) for path in paths]
        this_node = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        actor = ray.remote(num_cpus=0, scheduling_strategy=this_node)(FileActor)
        self._actor = actor.remote({file.sha256: file for file in self._files})

    def fetch(self) -> list[Path]:
        """Return the files on the machine of the caller; see RemoteFile.fetch().

        Raises:
            ModelFileError: a file cannot be fetched.
        """
        return [file.fetch(self._read) for file in self._files]

    def _read(self, sha256: str, offset: int) -> bytes:
        ray = import_ray()
        try:
            chunk = ray.get(self._actor.read.remote(sha256, offset))
        except ray.exceptions.RayError as error:
            raise ModelFileError(f"cannot fetch the model: {error_line(error)}") from None
        assert isinstance(chunk, bytes), "read() returns bytes"
        return chunk
