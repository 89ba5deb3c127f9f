"""Who can reach the cluster of `--ray local`, and addresses that cannot be."""

import ipaddress
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from thirteen.errors import RequestError
from thirteen.runtime.batch import ray_session

from ..background_server import free_port
from .ray_cluster import serving

pytestmark = pytest.mark.ray

CLIENT = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(ray.get(ray.remote(lambda: 13).remote()))
"""


def without_ray_settings(**environment: str) -> dict[str, str]:
    """This process's environment with no variables of Ray but these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | environment


@dataclass(frozen=True)
class LocalSession:
    command: psutil.Process

    @property
    def raylet(self) -> psutil.Process:
        (raylet,) = (child for child in self.command.children() if child.name() == "raylet")
        return raylet

    def argument(self, name: str) -> str:
        """An argument of the raylet's command line."""
        found = re.search(rf"--{name}=(\S+)", " ".join(self.raylet.cmdline()))
        assert found
        return found[1]

    def client(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", CLIENT, self.argument("gcs-address")],
            capture_output=True,
            text=True,
            env=without_ray_settings(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", **environment),
            timeout=90,
            check=False,
        )


@pytest.fixture(scope="module")
def session(tiny: Path) -> Iterator[LocalSession]:
    """A deployment on a cluster of its own."""
    words = (tiny, "--ray=local", "--port", free_port(), "--threads", 1)
    with serving(*words, env=without_ray_settings()) as command:
        local = LocalSession(psutil.Process(command.pid))
        folder = Path(local.argument("session_dir")).parents[1]
        yield local
    assert not folder.exists(), "the folder of a session outlived it"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the sockets of all processes in /proc")
def test_a_local_deployment_listens_on_loopback_only(session):
    """Ray replaces 127.0.0.1 by the machine's address, and then listens on all interfaces.

    Ray Serve's internal port of a replica listens on all; it asks for the token.
    """
    listening = {}
    for process in session.command.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM:
                    listening[connection.laddr] = process.name()
    assert {"raylet", "gcs_server"} <= set(listening.values())
    public = [
        name
        for address, name in listening.items()
        if not ipaddress.ip_address(address.ip.removeprefix("::ffff:")).is_loopback  # IPv4 in IPv6
    ]
    assert all(name.startswith("ray::ServeRepl") for name in public), listening


def test_its_sockets_and_logs_are_in_a_private_folder(session):
    """Below /tmp/ray, all users can read the logs of a session, and write to its folders."""
    outer = Path(session.argument("session_dir")).parents[1]
    assert stat.S_IMODE(outer.stat().st_mode) == 0o700 and outer.stat().st_uid == os.getuid()


def test_a_client_without_its_token_is_refused(session, tmp_path):
    token = session.raylet.environ()["RAY_AUTH_TOKEN"]
    allowed = session.client(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token, HOME=str(tmp_path))
    assert allowed.stdout == "13\n", allowed.stderr
    for environment in (
        {"RAY_AUTH_MODE": "disabled"},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token[::-1]},
    ):
        refused = session.client(HOME=str(tmp_path), **environment)
        assert refused.returncode and "13" not in refused.stdout.split(), environment


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("head:²", "must be local, auto or HOST:PORT of a head node that can be reached: "),
        ("127.0.0.1:1", ".*Connection refused"),
    ],
    ids=["no number", "nobody listens"],
)
def test_an_address_that_cannot_be_is_an_error_of_one_line(address, problem):
    """It was a traceback: "²" is a digit but no number."""
    with pytest.raises(RequestError) as error, ray_session.ray_session(address):
        pass
    assert re.match(f"ray {address}: {problem}", str(error.value)) and "\n" not in str(error.value)
