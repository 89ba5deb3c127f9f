"""Connection to a Ray cluster (https://docs.ray.io), its capacity, and the files that its workers fetch.

Ray is imported only when a cluster is used.
"""

import logging
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

from ..errors import FileError, OptionError, install_hint
from ..files.temporary_folder import temporary_folder
from ..server.access.request_limits import is_loopback
from .file_transfer import RemoteFile, read_chunk

LOCAL = "local"  # address of a cluster on this machine that starts and ends with the command
AUTO = "auto"  # address of the cluster that this machine is part of
_NAMESPACE = "thirteen"
_RAISED = re.compile(r"(\w+\.)*\w+(Error|Exception): ")
_CONNECT_TIMEOUT_S = 5.0
_SOCKET_PATH_MAX = 103  # bytes on macOS; Linux allows four more
_SOCKET_IN_SESSION = (
    "/thirteen-0123456789abcdef/ray/session_2026-12-31_23-59-59_123456_1234567/sockets/plasma_store"
)


def import_ray() -> Any:
    """Import Ray.

    Raises:
        OptionError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send no telemetry to Ray's makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns at every start
    try:
        import ray  # noqa: PLC0415 - an extra
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise OptionError("ray", f"needs Ray ({error}): {install_hint('ray')}") from None
    return ray


@contextmanager
def ray_session(address: str, *, insecure: bool = False) -> Iterator[Any]:
    """Connect to a cluster for the duration of the block.

    Args:
        address: LOCAL, AUTO, or HOST:PORT of the head node.
        insecure: whether to connect also to a cluster without token authentication.

    Yields:
        The module ray.

    Raises:
        OptionError: Ray is not installed, cannot connect, or the cluster has another version, or needs no
            token.
    """
    if address == LOCAL:
        with _local_cluster() as options, _connected(import_ray(), address, options) as ray:
            yield ray
        return
    if address != AUTO:
        _check_reachable(address)
    if not insecure:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is imported
    ray = import_ray()
    if not insecure:
        _check_needs_token(ray, address)
    with _connected(ray, address, {}):
        yield ray


@contextmanager
def _connected(ray: Any, address: str, options: Mapping[str, Any]) -> Iterator[Any]:
    try:
        ray.init(
            address=address, namespace=_NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **options
        )
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise OptionError("ray", error_line(error), address) from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _local_cluster() -> Iterator[dict[str, Any]]:
    """Options of a cluster that only this user's processes on this machine can reach.

    It listens on loopback, asks for a random token, and keeps its sockets and logs in a private folder. Ray
    reads the variables when it is imported, and its processes inherit them.

    Raises:
        OptionError: Ray was imported before without them, and would listen on all interfaces.
    """
    # Ray replaces 127.0.0.1 by the machine's own address, and then listens on all. Without "clusters" it does
    # not, as on macOS and Windows.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", token_hex())  # Ray reads it once per process
    if not _loopback_address():
        raise OptionError("ray", "Ray is in use already, and would listen on all interfaces", LOCAL)
    with temporary_folder("thirteen", _sockets_parent()) as folder:
        inner = folder / "ray"  # Ray makes it public, but not the folder around it
        inner.mkdir()
        yield {"include_dashboard": False, "_temp_dir": str(inner)}


def bind_serve_port_to_loopback() -> None:
    """Let the port of this Ray Serve replica listen on loopback if its node does, not on all interfaces.

    Ray Serve has no setting for it; the port needs the cluster's token in any case.
    """
    address = _loopback_address()
    from ray.serve._private import replica  # noqa: PLC0415 - an extra

    add_port = getattr(replica, "add_port_to_grpc_server", None)
    if add_port and address:
        host = f"[{address}]" if ":" in address else address
        replica.add_port_to_grpc_server = lambda server, _: add_port(server, f"{host}:0")


def _loopback_address() -> str:
    """The address of this node if that is loopback, else ""."""
    address: str = import_ray().util.get_node_ip_address()
    return address if is_loopback(address) else ""


def _sockets_parent() -> Path:
    """The folder for temporary files, unless the paths of Ray's sockets would be too long there."""
    folder = Path(tempfile.gettempdir())
    too_long = len(os.fsencode(f"{folder}{_SOCKET_IN_SESSION}")) > _SOCKET_PATH_MAX
    return Path("/tmp") if too_long and os.name == "posix" else folder  # noqa: S108 - for a private folder


def _check_reachable(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal()) or "/" in host:
        raise OptionError("ray", f"must be {LOCAL}, {AUTO} or HOST:PORT of the head node", address)
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError, ValueError) as error:  # a host name may have no encoding
        reason = getattr(error, "strerror", None) or error
        raise OptionError("ray", f"cannot connect: {reason}", address) from None


def _check_needs_token(ray: Any, address: str) -> None:
    """Check that a cluster refuses a client that sends no token.

    Raises:
        OptionError: it does not, or does not answer.
    """
    import grpc  # noqa: PLC0415 - comes with Ray

    if os.environ.get("RAY_USE_TLS", "0").lower() in {"1", "true"}:
        return  # then both sides need a certificate
    try:
        head = ray._private.services.canonicalize_bootstrap_address(address)
    except OSError as error:
        raise OptionError("ray", error_line(error), address) from None
    with grpc.insecure_channel(head, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=_CONNECT_TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return
            raise OptionError("ray", f"no Ray cluster answers: {error.details()}", address) from None
    reason = "the cluster needs no token, so all who reach its ports can run code on it: start it with "
    raise OptionError("ray", f"{reason}RAY_AUTH_MODE=token, or give {{ray_insecure}}", address)


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
        OptionError: none fit, or fewer than required.
    """
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    capacity = sum(node_cpus // cpus for node_cpus in nodes)
    if not capacity:
        found = ", ".join(map(str, nodes))
        reason = f"no node has the {cpus} processors of a worker (they have {found}): reduce {{threads}}"
        raise OptionError("ray", reason)
    if required is not None and required > capacity:
        raise OptionError("ray", f"{required} workers requested, but the nodes have room for {capacity}")
    return capacity


class SharedFiles:
    """Files of the command that workers on any node can fetch."""

    def __init__(self, ray: Any, *paths: Path) -> None:
        """Share files until the command disconnects."""
        self._files = [RemoteFile.from_path(path) for path in paths]
        this_node = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self._read_chunk = ray.remote(num_cpus=0, scheduling_strategy=this_node)(read_chunk)

    def fetch(self) -> list[Path]:
        """Return the files on the machine of the caller; see RemoteFile.fetch().

        Raises:
            FileError: a file cannot be fetched.
        """
        return [file.fetch(self._read) for file in self._files]

    def _read(self, path: str, offset: int) -> bytes:
        ray = import_ray()
        try:
            chunk = ray.get(self._read_chunk.remote(path, offset))
        except ray.exceptions.RayError as error:
            raise FileError(f"cannot fetch the model: {error_line(error)}") from None
        assert isinstance(chunk, bytes), "read_chunk() returns bytes"
        return chunk
