"""A connection to a Ray cluster (https://docs.ray.io). Ray is imported only when a cluster is used."""

import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

from ...errors import OptionError, install_hint
from ...files.cache_folder import temporary_folder

LOCAL = "local"  # address of a cluster on this machine that starts and ends with the command
_RAISED = re.compile(r"(\w+\.)*\w+(Error|Exception): ")
_CONNECT_TIMEOUT_S = 5.0


@contextmanager
def ray_session(address: str) -> Iterator[Any]:
    """Connect to a cluster for the duration of the block.

    Args:
        address: LOCAL, `auto` for the cluster that this machine is part of, or HOST:PORT of the head node.

    Yields:
        The module ray.

    Raises:
        OptionError: Ray is not installed, or cannot connect.
    """
    with ExitStack() as stack:
        options: dict[str, Any] = {}
        if address == LOCAL:
            _keep_to_loopback()
            # For sockets, whose paths must be short. Ray makes "ray" public, but not the folder around it.
            short = Path("/tmp") if os.name == "posix" else None  # noqa: S108
            folder = stack.enter_context(temporary_folder("thirteen", short)) / "ray"
            folder.mkdir()
            options = {"include_dashboard": False, "_temp_dir": str(folder)}
        elif address != "auto":
            _check_reachable(address)
        ray = _import_ray()
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise OptionError("ray", error_line(error), address) from None
        stack.callback(ray.shutdown)
        yield ray


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # send no telemetry to Ray's makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns at every start
    try:
        import ray.data  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise OptionError("ray", f"needs Ray ({error}): {install_hint('ray')}") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def _keep_to_loopback() -> None:
    """Let a local cluster listen on loopback, with a random token; Ray reads this when it is imported."""
    if "ray" in sys.modules and os.environ.get("RAY_AUTH_MODE") != "token":
        raise OptionError("ray", "Ray was imported before, and would listen on all interfaces", LOCAL)
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # with "clusters", 127.0.0.1 is replaced
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", token_hex())


def _check_reachable(address: str) -> None:
    """Refuse at once what Ray would try for a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError, ValueError) as error:  # a host name may have no encoding
        reason = f"must be {LOCAL}, auto or HOST:PORT of a head node that can be reached: {error}"
        raise OptionError("ray", reason, address) from None


def error_line(error: Exception) -> str:
    """Return an error in one line: the exception at the end of a remote traceback, or the whole message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if _RAISED.match(line)]
    return raised[-1] if raised else " ".join(lines) or type(error).__name__


def worker_capacity(ray: Any, cpus: int, required: int = 1) -> int:
    """Return how many workers fit on the cluster's nodes, not counting what others use now.

    Args:
        ray: the module.
        cpus: processors of a worker.
        required: minimum number of workers.

    Raises:
        OptionError: fewer fit.
    """
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    capacity = sum(node_cpus // cpus for node_cpus in nodes)
    if required > capacity:
        found = f"nodes with {', '.join(map(str, nodes))} processors"
        reason = f"no room for {required} workers of {cpus} {{threads}} on {found}"
        raise OptionError("ray", reason)
    return capacity
