"""A Ray cluster: how to reach it, what is on it, and its files.

Ray (https://docs.ray.io) is what schedules; it is imported only where a cluster is asked for.
"""

import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import ModelFileError, RequestError
from .file_transfer import RemoteFile, read_chunk

LOCAL = "local"  # the address of a cluster that is begun on this machine, and ends with the command
AUTO = "auto"  # of the one that this machine is part of
_NAMESPACE = "thirteen"
_RAISED = re.compile(r"(\w+\.)*\w+(Error|Exception): ")
_ANSWER_S = 5.0  # how long an address may take to answer


def import_ray() -> Any:
    """The module ray.

    Raises:
        RequestError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns at every start
    try:
        import ray  # noqa: PLC0415 - an extra
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise RequestError(f"--ray: needs Ray ({error}): pip install 'thirteen[ray]'") from None
    return ray


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Be part of a cluster; yields the module ray.

    Args:
        address: LOCAL, AUTO, or HOST:PORT of the cluster's head.

    Raises:
        RequestError: Ray is not installed, nobody answers there, or who does has another version.
    """
    ray = import_ray()
    if address not in {LOCAL, AUTO}:
        _check_answers(address)
    alone = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}  # Ray trusts whoever reaches it
    try:
        ray.init(
            address=address,
            namespace=_NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(alone if address == LOCAL else {}),
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise RequestError(f"--ray {address}: {error_line(error)}") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdigit()) or "/" in host:
        raise RequestError(f"--ray {address}: give {AUTO}, or HOST:PORT of the cluster's head")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise RequestError(
            f"--ray {address}: nobody answers there: {getattr(error, 'strerror', None) or error}"
        ) from None


def error_line(error: Exception) -> str:
    """What went wrong, in a line: of a remote traceback, what was raised there; else all that is said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if _RAISED.match(line)]
    return raised[-1] if raised else " ".join(lines) or type(error).__name__


def worker_capacity(ray: Any, cpus: int, wanted: int | None = None) -> int:
    """How many workers of so many processors the cluster's nodes have, whoever uses them now.

    Args:
        ray: the module.
        cpus: of a worker.
        wanted: the least number.

    Raises:
        RequestError: they have none, or less than is wanted.
    """
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    workers = sum(has // cpus for has in nodes)
    if not workers:
        raise RequestError(
            f"--ray: no node has the {cpus} processors that a worker of so many threads takes (they have "
            f"{', '.join(map(str, nodes))}): give fewer --threads"
        )
    if wanted is not None and wanted > workers:
        raise RequestError(f"--ray: {wanted} are wanted, but the nodes have processors for {workers}")
    return workers


class FileActor:
    """An actor beside the command that has files to give away."""

    def __init__(self, parcels: Mapping[str, RemoteFile]) -> None:
        """Have these, by their hashes."""
        self._parcels = dict(parcels)

    def read(self, sha256: str, offset: int) -> bytes:
        """Some bytes of one of them; see parcel.read_chunk()."""
        return read_chunk(self._parcels[sha256].path, offset)


class SharedFiles:
    """Files that workers of a cluster can have, wherever they run."""

    def __init__(self, ray: Any, *paths: Path) -> None:
        """Put files at the workers' disposal, for as long as the command is connected."""
        self.parcels = [RemoteFile.of(path) for path in paths]
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        actor = ray.remote(num_cpus=0, scheduling_strategy=here)(FileActor)
        self._shelf = actor.remote({parcel.sha256: parcel for parcel in self.parcels})

    def unpack(self) -> list[Path]:
        """The files on the machine where this is called; see RemoteFile.unpack().

        Raises:
            ModelFileError: one cannot be had.
        """
        return [parcel.unpack(self._read) for parcel in self.parcels]

    def _read(self, sha256: str, offset: int) -> bytes:
        ray = import_ray()
        try:
            chunk = ray.get(self._shelf.read.remote(sha256, offset))
        except ray.exceptions.RayError as error:
            raise ModelFileError(f"the model cannot be fetched: {error_line(error)}") from None
        assert isinstance(chunk, bytes), "a shelf gives bytes"
        return chunk
