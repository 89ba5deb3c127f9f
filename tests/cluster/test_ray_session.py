"""Who can reach a cluster: that of one machine serves this user only, and others must ask for a token."""

import ipaddress
import json
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import psutil
import pytest
from thirteen.cluster import ray_session
from thirteen.errors import RequestError

pytestmark = pytest.mark.ray

MARK = "THIRTEEN_TEST_CLUSTER"  # environment variable that all processes of a cluster inherit

# A local deployment that tells its address and its folder when it listens.
DEPLOYMENT = """
import json
from thirteen.cli.main import main
from thirteen.cluster import deploy
base_url = deploy.base_url
def listening(*address):
    import ray  # it reads its settings when it is imported
    node = ray._private.worker._global_node
    print(json.dumps([node.gcs_address, node.get_session_dir_path()]), flush=True)
    return base_url(*address)
deploy.base_url = listening
main()
"""

HEAD = """
import sys
import ray
import ray._private.utils
ray.__version__ = "2.0.0"
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
print(cluster.address, flush=True)
sys.stdin.read()
"""

CLIENT = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(ray.get(ray.remote(lambda: 13).remote()))
"""


def without_ray_settings(**environment: str) -> dict[str, str]:
    """This process's environment with no variables of Ray but these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | environment


@contextmanager
def started(command: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=without_ray_settings(**environment),
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


@dataclass(frozen=True)
class LocalSession:
    process: subprocess.Popen[str]
    mark: str
    gcs_address: str
    folder: Path

    @property
    def processes(self) -> list[psutil.Process]:
        return marked(self.mark)

    @property
    def token(self) -> str:
        """The token, from the environment of the head process, which only this user can read."""
        (head,) = (one for one in self.processes if one.name() == "gcs_server")
        return str(head.environ()["RAY_AUTH_TOKEN"])

    def client(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", CLIENT, self.gcs_address],
            capture_output=True,
            text=True,
            env=without_ray_settings(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", **environment),
            timeout=90,
            check=False,
        )


def marked(mark: str) -> list[psutil.Process]:
    """The processes that inherited a mark."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                found.append(process)
    return found


@pytest.fixture(scope="module")
def session(tiny):
    """A deployment on a cluster of its own."""
    mark = token_hex()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", str(tiny), "--ray=local", "--port", str(port), "--threads", "1"]
    with started([sys.executable, "-c", DEPLOYMENT, *words], **{MARK: mark}) as process:
        assert process.stdout and process.stderr
        line = next(
            (line for line in process.stdout if line.startswith("[")), ""
        )  # Ray may print others first
        assert line, process.stderr.read()
        gcs_address, folder = json.loads(line)
        yield LocalSession(process, mark, gcs_address, Path(folder))
        process.terminate()
        process.communicate(timeout=60)
        assert not Path(folder).parents[1].exists(), "the folder of a session outlived it"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the sockets of all processes in /proc")
def test_all_processes_of_a_local_deployment_listen_on_loopback_only(session):
    """Ray replaces 127.0.0.1 by the machine's address, and then listens on all interfaces."""
    listening = {}
    for process in session.processes:
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM:
                    listening[connection.laddr] = process.name()
    assert {"raylet", "gcs_server"} <= set(listening.values())
    addresses = {address.ip.removeprefix("::ffff:") for address in listening}  # IPv4 in IPv6
    assert all(ipaddress.ip_address(ip).is_loopback for ip in addresses), listening


def test_its_sockets_and_logs_are_in_a_private_folder(session):
    """Below /tmp/ray, all users can read the logs of a session, and write to its folders."""
    outer = session.folder.parents[1]
    assert stat.S_IMODE(outer.stat().st_mode) == 0o700 and outer.stat().st_uid == os.getuid()
    assert {path.name for path in session.folder.iterdir()} >= {"logs", "sockets"}
    assert outer.parent == Path(tempfile.gettempdir())


def test_a_client_without_its_token_is_refused(session, tmp_path):
    token = session.token
    allowed = session.client(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token, HOME=str(tmp_path))
    assert allowed.stdout == "13\n", allowed.stderr
    for environment in (
        {"RAY_AUTH_MODE": "disabled"},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token[::-1]},
        {},
    ):
        refused = session.client(HOME=str(tmp_path), **environment)
        assert refused.returncode and "13" not in refused.stdout.split(), environment


def test_a_cluster_without_tokens_is_refused_unless_a_flag_allows_it_and_so_is_another_version(
    tiny, tmp_path
):
    questions, output = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    questions.write_text('{"question": "1 + 1?"}\n')
    with started([sys.executable, "-c", HEAD], RAY_AUTH_MODE="disabled", HOME=str(tmp_path)) as head:
        assert head.stdout and head.stdin
        address = next(line.strip() for line in head.stdout if line[0].isdigit())
        for options, message in (
            ((), "the cluster needs no token.*--ray-insecure"),
            (("--ray-insecure",), r".*2\.0\.0"),
        ):
            words = ["batch", questions, tiny, "--out", output, "--ray", address, "--threads", 1, *options]
            done = subprocess.run(
                [sys.executable, "-m", "thirteen", *map(str, words)],
                capture_output=True,
                text=True,
                env=without_ray_settings(HOME=str(tmp_path)),
                check=False,
            )
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
            assert re.match(f"error: --ray {address}: {message}", done.stderr), done.stderr
        head.stdin.close()
        head.wait(60)
    assert not output.exists()


def test_a_folder_whose_socket_paths_would_be_too_long_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 20)))
    assert ray_session._sockets_parent() == Path("/tmp")
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    assert ray_session._sockets_parent() == Path("/var/tmp")


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("head", "must be local, auto or HOST:PORT of the head node"),
        ("head:²", "must be local, auto or HOST:PORT of the head node"),
        ("head:99999", "cannot connect: "),
        (f"{'a' * 64}:1", "cannot connect: "),
        (f"head:{'1' * 5000}", "cannot connect: "),
        ("127.0.0.1:1", "cannot connect: Connection refused"),
    ],
    ids=["no port", "no number", "a large port", "a long host", "an endless port", "nobody listens"],
)
def test_an_address_that_cannot_be_is_an_error_of_one_line(address, problem):
    """Some were a traceback: "²" is a digit but no number, and parts of host names have up to 63 letters."""
    with pytest.raises(RequestError) as error, ray_session.ray_session(address):
        pass
    assert str(error.value).startswith(f"ray {address}: {problem}") and "\n" not in str(error.value)
